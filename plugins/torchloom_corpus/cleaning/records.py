"""What this room supplies, by name. Light."""

from torchloom import Component

STEPS = "torchloom_corpus.cleaning.steps"
CONFIGS = "torchloom_corpus.cleaning.configs"


def _step(name: str, cls: str, summary: str, source: str = "") -> Component:
    return Component(
        kind="corpus_step",
        name=name,
        target=f"{STEPS}:{cls}",
        config=f"{CONFIGS}:{cls}Config",
        summary=summary,
        source=source,
        needs=("datatrove", "ftfy", "phonenumbers", "regex"),
        extra="torchloom[corpus]",
    )


COMPONENTS: list[Component] = [
    _step("html_remnants", "HtmlRemnants", "Take out tags and entities left over in plain text"),
    _step(
        "fix_unicode",
        "FixUnicode",
        "Repair text that was decoded wrongly",
        source="Speer 2019, https://doi.org/10.5281/zenodo.2591652",
    ),
    _step("normalize_unicode", "NormalizeUnicode", "One way of writing each character (NFC or NFKC)"),
    _step("control_characters", "ControlCharacters", "Take out control, zero-width and direction characters"),
    _step("whitespace", "Whitespace", "Tidy line ends, blank lines and odd spaces; keeps indentation"),
    _step("boilerplate_lines", "BoilerplateLines", "Leave out lines such as cookie notices and share buttons"),
    _step("mask_personal_data", "MaskPersonalData", "Mask e-mail addresses, public IP addresses and phone numbers"),
]
