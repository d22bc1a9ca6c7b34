"""Text datasets and tokenizers, declared by name."""

from torchloom import Component, hookimpl

SLOTS = {"tokenizer": "char"}


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare datasets and tokenizers."""
    return [
        Component(
            kind="dataset",
            name="python_docs",
            target="torchloom_text.datasets:PythonDocs",
            config="torchloom_text.configs:PythonDocsConfig",
            summary="Python's language reference, as every Python carries it (0.4 million characters)",
            source="https://docs.python.org/3/reference/",
            slots=SLOTS,
        ),
        Component(
            kind="dataset",
            name="stdlib_code",
            target="torchloom_text.datasets:StdlibCode",
            config="torchloom_text.configs:StdlibCodeConfig",
            summary="Python source code of the standard library, without its tests (11 million characters)",
            source="https://docs.python.org/3/library/",
            slots=SLOTS,
        ),
        Component(
            kind="dataset",
            name="text_files",
            target="torchloom_text.datasets:TextFiles",
            config="torchloom_text.configs:TextFilesConfig",
            summary="Your own UTF-8 text: one file or a folder of files",
            slots=SLOTS,
        ),
        Component(
            kind="tokenizer",
            name="char",
            target="torchloom_text.tokenization:CharTokenizer",
            config="torchloom_text.configs:CharConfig",
            summary="One token a character",
            source="https://github.com/karpathy/char-rnn",
        ),
        Component(
            kind="tokenizer",
            name="byte",
            target="torchloom_text.tokenization:ByteTokenizer",
            config="torchloom_text.configs:ByteConfig",
            summary="One token a byte; any text comes back exactly",
            source="Xue et al. 2022 (ByT5), https://arxiv.org/abs/2105.13626",
        ),
        Component(
            kind="tokenizer",
            name="word",
            target="torchloom_text.tokenization:WordTokenizer",
            config="torchloom_text.configs:WordConfig",
            summary="One token a word or run of punctuation; spacing is lost",
            source="https://huggingface.co/docs/tokenizers",
        ),
        Component(
            kind="tokenizer",
            name="bpe",
            target="torchloom_text.tokenization:BPETokenizer",
            config="torchloom_text.configs:BPEConfig",
            summary="Byte-level byte-pair encoding; any text comes back exactly",
            source="Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; Radford et al. 2019 (GPT-2)",
            aliases=("byte_bpe",),
        ),
        Component(
            kind="tokenizer",
            name="char_bpe",
            target="torchloom_text.tokenization:CharBPETokenizer",
            config="torchloom_text.configs:CharBPEConfig",
            summary="Byte-pair encoding of characters; by default any text comes back exactly",
            source="Sennrich et al. 2016, https://arxiv.org/abs/1508.07909",
        ),
        Component(
            kind="tokenizer",
            name="wordpiece",
            target="torchloom_text.tokenization:WordPieceTokenizer",
            config="torchloom_text.configs:WordPieceConfig",
            summary="BERT's pieces of words; reads its vocab.txt; spacing is lost",
            source="Schuster and Nakajima 2012; Devlin et al. 2019, https://arxiv.org/abs/1810.04805",
        ),
        Component(
            kind="tokenizer",
            name="unigram",
            target="torchloom_text.tokenization:UnigramTokenizer",
            config="torchloom_text.configs:UnigramConfig",
            summary="Pieces by a unigram language model, as SentencePiece's; by default any text comes back exactly",
            source="Kudo 2018, https://arxiv.org/abs/1804.10959; https://github.com/google/sentencepiece",
        ),
    ]
