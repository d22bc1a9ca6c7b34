"""What a crawl has found, fetched and still to fetch: a database that a kill leaves as it was after some page.

Scrapy's own job folder is of use only if the crawl is stopped in good order: it writes its list of queues when it closes,
and a page that was waiting when the process was killed is known as seen but never fetched.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from w3lib.url import canonicalize_url, safe_url_string

from torchloom.errors import DataError

WAITING, ACTIVE, DONE = range(3)
REDIRECT = "redirect"
MAX_REDIRECTS = 20

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pages (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,   -- the address in a form that is the same for all ways of writing it
    url TEXT NOT NULL,
    host TEXT NOT NULL,
    depth INTEGER NOT NULL,     -- links from a seed
    hops INTEGER NOT NULL,      -- redirects that led to it
    state INTEGER NOT NULL,
    reason TEXT,                -- why it was not kept
    target TEXT,                -- key of the page that it redirects to
    file INTEGER,               -- number of the archive that it was kept in
    end INTEGER                 -- where its record ends in there
);
CREATE INDEX IF NOT EXISTS queue ON pages (state, depth, host, id);
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, number INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Page:
    """A page that is to be fetched.

    Attributes:
        id: Its number.
        url: Its address.
        host: Its host.
        depth: Links from a seed.
        hops: Redirects that led to it.
    """

    id: int
    url: str
    host: str
    depth: int
    hops: int


class Frontier:
    """The pages of a crawl.

    They are taken level by level: no page before all that are fewer links from a seed. A page's depth is then the length
    of the shortest way to it, whatever the order in which servers answer.

    Args:
        path: The database, made where there is none.
        max_pages: Pages to keep, at most.
        per_host: Pages of a host that are fetched at once, at most.
        wait: Seconds to wait for another crawl to end.

    Raises:
        DataError: Another crawl is using it, or it is damaged.
    """

    def __init__(self, path: Path, max_pages: int | None = None, per_host: int = 1, wait: float = 10) -> None:
        try:
            self._db = sqlite3.connect(path, timeout=wait)
            # A commit is not forced to the disk: a killed process loses nothing by that, and a power cut some pages.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
            self._db.execute("UPDATE pages SET state = ? WHERE state = ?", (WAITING, ACTIVE))
            self._db.commit()
        except sqlite3.OperationalError as error:
            raise DataError(f"{path}: cannot be used ({error}); is another crawl running in this folder?") from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path}: damaged ({error}); delete the folder to crawl anew") from error
        self._max_pages = max_pages
        self._per_host = per_host
        self._level = -1
        self._waiting: Counter[str] = Counter()  # of the present level, by host
        self._active: Counter[str] = Counter()
        self.kept = self._number("state = 2 AND reason IS NULL")
        self.waiting = self._number("state = 0")

    def _number(self, condition: str) -> int:
        number: int = self._db.execute(f"SELECT count(*) FROM pages WHERE {condition}").fetchone()[0]
        return number

    def close(self) -> None:
        """Close the database, with all that was added."""
        self._db.commit()
        self._db.close()

    def add(self, url: str, depth: int, hops: int = 0) -> None:
        """Note a page to fetch, unless it is known; the next `finish`, or `close`, makes it last.

        Args:
            url: Its address.
            depth: Links from a seed.
            hops: Redirects that led to it.
        """
        url = safe_url_string(urldefrag(url)[0])
        key, host = canonicalize_url(url), urlsplit(url).hostname or ""
        new = self._db.execute(
            "INSERT OR IGNORE INTO pages (key, url, host, depth, hops, state) VALUES (?, ?, ?, ?, ?, ?)",
            (key, url, host, depth, hops, WAITING),
        ).rowcount
        nearer = (
            new
            or self._db.execute(
                "UPDATE pages SET depth = ? WHERE key = ? AND state = ? AND depth > ?", (depth, key, WAITING, depth)
            ).rowcount
        )
        self.waiting += new
        if nearer and depth == self._level:
            self._waiting[host] += 1

    def take(self) -> Page | None:
        """Return the next page to fetch, of the host that is busy least; None where it is best to wait, or at the end."""
        active = sum(self._active.values())
        if self._max_pages is not None and self.kept + active >= self._max_pages:
            return None
        if not +self._waiting:
            if active:
                return None
            self._begin_level()
        free = [host for host in self._waiting if self._active[host] < self._per_host]
        if not free:
            return None
        host = min(free, key=lambda name: self._active[name])
        row = self._db.execute(
            "SELECT id, url, host, depth, hops FROM pages WHERE state = ? AND depth = ? AND host = ? ORDER BY id LIMIT 1",
            (WAITING, self._level, host),
        ).fetchone()
        page = Page(*row)
        self._db.execute("UPDATE pages SET state = ? WHERE id = ?", (ACTIVE, page.id))
        self.waiting -= 1
        self._active[host] += 1
        self._waiting[host] -= 1
        if not self._waiting[host]:
            del self._waiting[host]
        return page

    def _begin_level(self) -> None:
        level = self._db.execute("SELECT min(depth) FROM pages WHERE state = ?", (WAITING,)).fetchone()[0]
        if level is not None:
            self._level = level
            rows = self._db.execute(
                "SELECT host, count(*) FROM pages WHERE state = ? AND depth = ? GROUP BY host", (WAITING, level)
            )
            self._waiting = Counter(dict(rows))

    @property
    def exhausted(self) -> bool:
        """Whether no further page will be asked for, once those under way are done."""
        return not self.waiting or (self._max_pages is not None and self.kept >= self._max_pages)

    def finish(
        self,
        page: Page,
        *,
        reason: str | None = None,
        target: str | None = None,
        file: int | None = None,
        end: int | None = None,
        counts: Iterable[str] = (),
    ) -> None:
        """Note for good what became of a page, and with it all that was added since the last page.

        Args:
            page: The page.
            reason: Why it was not kept; None if it was.
            target: Address that it redirects to.
            file: Number of the archive that it was kept in.
            end: Where its record ends in there, in bytes.
            counts: Names that are counted once each.
        """
        key = canonicalize_url(safe_url_string(target)) if target else None
        self._db.execute(
            "UPDATE pages SET state = ?, reason = ?, target = ?, file = ?, end = ? WHERE id = ?",
            (DONE, reason, key, file, end, page.id),
        )
        self._db.executemany(
            "INSERT INTO counts VALUES (?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number",
            Counter(counts).items(),
        )
        self._db.commit()
        self._active[page.host] -= 1
        if not self._active[page.host]:
            del self._active[page.host]
        self.kept += reason is None

    def last_file(self) -> tuple[int, int, int]:
        """Return number, pages and size in bytes of the last archive; an empty one's where there is none."""
        row = self._db.execute(
            "SELECT file, count(*), max(end) FROM pages WHERE file IS NOT NULL GROUP BY file ORDER BY file DESC LIMIT 1"
        ).fetchone()
        return row or (0, 0, 0)

    def forget_beyond(self, file: int, size: int) -> None:
        """Fetch again what was to be in an archive beyond its size, which a power cut can leave short.

        Args:
            file: Number of the archive.
            size: Its size, in bytes.
        """
        self.kept -= self._number(f"file = {file} AND end > {size}")
        self._db.execute(
            "UPDATE pages SET state = ?, file = NULL, end = NULL WHERE file = ? AND end > ?", (WAITING, file, size)
        )
        self._db.commit()
        self.waiting = self._number("state = 0")

    def counts(self) -> dict[str, int]:
        """Return what `finish` counted."""
        return dict(self._db.execute("SELECT name, number FROM counts ORDER BY name"))

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield reason and address of each page that was not kept, but for redirects that lead to one."""
        yield from self._db.execute(
            "SELECT reason, url FROM pages WHERE reason IS NOT NULL AND reason <> ? ORDER BY id", (REDIRECT,)
        )
        redirects = dict(self._db.execute("SELECT key, target FROM pages WHERE reason = ?", (REDIRECT,)))
        for key in redirects:
            passed, place = {key}, redirects[key]
            while place in redirects and place not in passed:
                passed.add(place)
                place = redirects[place]
            if place in passed:
                yield "redirect loop", key

    def redirects(self) -> int:
        """Return the number of pages that redirect to another."""
        return self._number(f"reason = '{REDIRECT}'")
