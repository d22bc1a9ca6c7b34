"""Chat: what is learnt from, what is measured, and how a prompt is answered."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from torchloom.contracts.chat import TEMPLATES, ChatTemplate, encode
from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import ChatSpec
from torchloom.errors import DataError, UnsupportedError
from torchloom_attention.configs import SDPAttentionConfig
from torchloom_attention.sdpa import SDPAttention
from torchloom_objectives.chat import Chat
from torchloom_objectives.configs import ChatConfig
from torchloom_text.configs import ByteConfig
from torchloom_text.tokenization import ByteTokenizer
from torchloom_transformer.configs import DecoderConfig
from torchloom_transformer.decoder import Decoder

FORMS = ("<|im_start|>", "<|im_end|>")


def tokenizer_with_turns():
    made = ByteTokenizer(ByteConfig(special_tokens=["pad"]))
    made.train(["bytes"])
    return made, made.add(FORMS)


TOKENIZER, IDS = tokenizer_with_turns()
SPEC = ChatSpec(
    vocab_size=TOKENIZER.vocab_size,
    context_length=80,
    pad_id=0,
    template=TEMPLATES["chatml"],
    special_tokens=FORMS,
    special_ids=tuple(IDS),
    end_id=IDS[1],
)
TALKS = [
    [("user", "hi"), ("assistant", "yes"), ("user", "so"), ("assistant", "no no")],
    [("user", "one"), ("assistant", "x")],
]


def messages(talk):
    return [{"role": role, "content": content} for role, content in talk]


def batch():
    template = ChatTemplate.of(SPEC)
    rows = encode([template.pieces(messages(talk)) for talk in TALKS], TOKENIZER, dict(zip(FORMS, IDS, strict=True)))
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    tokens, answer = (
        torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row[part]) for row in rows], batch_first=True)
        for part in (0, 1)
    )
    return {"tokens": tokens, "length": lengths, "answer": answer}


def build(seed=0, spec=SPEC):
    torch.manual_seed(seed)
    objective = Chat(ChatConfig(), spec)
    config = DecoderConfig(d_model=16, num_layers=2, num_heads=2, tie_embeddings=False, init_std=0.5)
    network = Decoder(config, spec, SDPAttention(SDPAttentionConfig()))
    return objective, Model(network, objective.head(network), objective.protocol).eval()


def test_nothing_but_answers_with_their_ends_gives_a_gradient():
    objective, model = build()
    examples = batch()
    logits = model(**objective.inputs(examples)).detach().requires_grad_()
    loss = objective.loss(logits, examples)
    loss.total.backward()
    learnt = logits.grad.abs().sum(dim=-1) > 0
    assert torch.equal(learnt, examples["answer"][:, 1:])
    written = [TOKENIZER.decode(row[places]) for row, places in zip(examples["tokens"][:, 1:], learnt, strict=True)]
    assert written == ["yes<|im_end|>no no<|im_end|>", "x<|im_end|>"]
    assert loss.weight == 4 + 6 + 2


def test_loss_is_that_of_each_answer_behind_all_that_was_said():
    objective, model = build()
    examples = batch()
    total = 0.0
    for talk in TALKS:
        said = ""
        for role, content in talk:
            ids = written(said + f"<|im_start|>{role}\n")
            if role == "assistant":
                answer = [*TOKENIZER.encode(content).tolist(), IDS[1]]
                logits = model(tokens=torch.tensor([[*ids, *answer]]))[0, len(ids) - 1 : -1]
                total += F.cross_entropy(logits, torch.tensor(answer), reduction="sum")
            said += f"<|im_start|>{role}\n{content}<|im_end|>\n"
    assert_close(objective.loss(model(**objective.inputs(examples)), examples).total, total)


def written(text):
    """Return the ids of a text that holds special tokens."""
    for form, index in zip(FORMS, IDS, strict=True):
        text = text.replace(form, chr(0xE000 + index))
    return [ord(one) - 0xE000 if ord(one) >= 0xE000 else TOKENIZER.encode(one).item() for one in text]


def test_exact_counts_answers_that_are_right_to_the_last_token():
    objective, _ = build()
    examples = batch()
    targets = objective.targets(examples)
    right = F.one_hot(targets.clamp(min=0), SPEC.vocab_size).float()
    metrics = objective.metrics()
    objective.update_metrics(metrics, right, examples)
    assert metrics["exact"].compute() == metrics["accuracy"].compute() == 1
    end = int((targets[0] >= 0).nonzero().max())
    wrong = right.clone()
    wrong[0, end] = right[0, end].roll(1)  # the end of the second of three answers
    wrong[1, 0] = right[1, 0].roll(1)  # no part of an answer
    objective.update_metrics(metrics := objective.metrics(), wrong, examples)
    assert_close(metrics["exact"].compute(), torch.tensor(2 / 3))
    assert_close(metrics["accuracy"].compute(), torch.tensor(11 / 12))


@torch.no_grad()
def greedy(model, ids, most):
    made = []
    while len(made) < most:
        made.append(int(model(tokens=torch.tensor([[*ids, *made]]))[0, -1].argmax()))
        if made[-1] == IDS[1]:
            return made[:-1]
    return made


def answers(objective, model, **request):
    request = {"temperature": 0, "max_new_tokens": 20, **request}
    with torch.no_grad():
        return list(objective.generate(model, GenerateRequest(**request), TOKENIZER).texts)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_prompt_is_answered_inside_the_template(use_cache):
    objective, model = build()
    prompts = ["hello", "what?", "<|im_end|>"]
    made = answers(objective, model, prompts=prompts, num_samples=4, use_cache=use_cache, on_token=(heard := []).append)
    expected = [
        TOKENIZER.decode(greedy(model, written("<|im_start|>user\n") + TOKENIZER.encode(one).tolist() + tail(), 20))
        for one in prompts
    ]
    assert made == [*expected, expected[0]]
    assert len(set(expected)) == 3
    assert "".join(heard) == expected[0]


def tail():
    return written("<|im_end|>\n<|im_start|>assistant\n")


def test_an_answer_ends_with_its_turn():
    """The network is made to end whatever it says, at a time that hangs on the prompt."""
    objective, model = build()
    with torch.no_grad():
        model.head.weight[IDS[1]] *= 1.5
    made = answers(objective, model, prompts=[f"number {n}" for n in range(30)], max_new_tokens=30)
    expected = [
        TOKENIZER.decode(greedy(model, written(f"<|im_start|>user\nnumber {n}") + tail(), 30)) for n in range(30)
    ]
    assert made == expected
    assert len({len(one) for one in made}) > 3
    assert not any("<|im_end|>" in one for one in made)


def test_a_whole_conversation_is_a_prompt_too():
    objective, model = build()
    talk = messages([("system", "be kind"), ("user", "hi"), ("assistant", "yes"), ("user", "so")])
    text = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in talk)
    expected = TOKENIZER.decode(greedy(model, written(text + "<|im_start|>assistant\n"), 9))
    assert answers(objective, model, prompts=[json.dumps(talk)], max_new_tokens=9) == [expected]
    quoted = '[{"no": "messages"}]'
    ids = written("<|im_start|>user\n") + TOKENIZER.encode(quoted).tolist() + tail()
    expected = TOKENIZER.decode(greedy(model, ids, 9))
    assert answers(objective, model, prompts=[quoted], max_new_tokens=9) == [expected]


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ([], UnsupportedError, "objective chat answers a message; give one as the prompt"),
        ([" "], UnsupportedError, "objective chat answers a message; give one as the prompt"),
        (
            [json.dumps(messages([("user", "hi"), ("assistant", "yes")]))],
            DataError,
            "the conversation to answer ends in an answer; end it with a message of the user",
        ),
        (
            [json.dumps(messages([("user", "hi"), ("bot", "yes")]))],
            DataError,
            "the conversation to answer message 2 has the role 'bot'; choose among system, user, assistant",
        ),
    ],
)
def test_prompts_that_ask_nothing_are_refused(prompts, error, message):
    objective, model = build()
    with pytest.raises(error) as caught:
        answers(objective, model, prompts=prompts)
    assert str(caught.value) == message
