"""Deduplication and decontamination, declared by name. Light."""

from torchloom import Component

PACKAGE = "torchloom_corpus.dedup"
EXTRA = "torchloom[corpus]"
NEEDS = ("datatrove", "numpy", "xxhash")

COMPONENTS: list[Component] = [
    Component(
        kind="corpus_step",
        name="exact_documents",
        target=f"{PACKAGE}.exact:ExactDocuments",
        config=f"{PACKAGE}.configs:ExactDocumentsConfig",
        summary="Drop documents whose text another one has, here or in an existing corpus",
        needs=NEEDS,
        extra=EXTRA,
    ),
    Component(
        kind="corpus_step",
        name="exact_paragraphs",
        target=f"{PACKAGE}.exact:ExactParagraphs",
        config=f"{PACKAGE}.configs:ExactParagraphsConfig",
        summary="Cut out paragraphs that stand elsewhere in the corpus or in an existing one",
        needs=NEEDS,
        extra=EXTRA,
    ),
    Component(
        kind="corpus_step",
        name="exact_lines",
        target=f"{PACKAGE}.exact:ExactLines",
        config=f"{PACKAGE}.configs:ExactLinesConfig",
        summary="Cut out lines that stand elsewhere in the corpus or in an existing one",
        needs=NEEDS,
        extra=EXTRA,
    ),
    Component(
        kind="corpus_step",
        name="minhash",
        target=f"{PACKAGE}.minhash:MinHash",
        config=f"{PACKAGE}.configs:MinHashConfig",
        summary="Drop near copies of documents, here or in an existing corpus (MinHash LSH)",
        source="Broder 1997; Penedo et al. 2024 (FineWeb), https://arxiv.org/abs/2406.17557",
        needs=(*NEEDS, "scipy"),
        extra=EXTRA,
    ),
    Component(
        kind="corpus_step",
        name="decontaminate",
        target=f"{PACKAGE}.decontamination:Decontaminate",
        config=f"{PACKAGE}.configs:DecontaminateConfig",
        summary="Drop documents, or cut passages, that share n-grams with evaluation sets",
        source="Brown et al. 2020 (GPT-3), appendix C, https://arxiv.org/abs/2005.14165",
        needs=NEEDS,
        extra=EXTRA,
    ),
]
