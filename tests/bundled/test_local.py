"""The engine without a bus says what transformers says, however prompts share steps, pages and prefixes."""

import re
import subprocess
import sys
from collections import defaultdict

import pytest
import torch

from radixmesh import local
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import SamplingParams, Submit, Work
from radixmesh.shared.model_files.model_source import bundled_model

MESSAGES = [
    "What is the capital of France?",
    "What is the capital of Italy?",
    "What is 3 + 4?",
    'What is the capital of Japan? Answer in JSON with the key "capital".',
    "Tell me a story.",
]
TEXT = "In a green valley lived"
MOST = 48


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[str, int]]:
    """What transformers' own model says, greedily and in float32: text, and how many tokens that took, by prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    model = AutoModelForCausalLM.from_pretrained(bundled_model(), dtype=torch.float32)

    def answer(prompt: str) -> tuple[str, int]:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=MOST, do_sample=False)
        made = made[0, ids.shape[1] :]
        return tokenizer.decode(made, skip_special_tokens=True), len(made)

    def chat(message: str) -> str:
        turns = [{"role": "user", "content": message}]
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    return {message: answer(chat(message)) for message in MESSAGES} | {TEXT: answer(TEXT)}


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "radixmesh.local", *args], capture_output=True, text=True, timeout=120
    )


def submits(*prompts: str) -> list[Submit]:
    return [
        Submit(
            request_id=str(number),
            gateway_id=local.HERE,
            model=local.HERE,
            messages=[{"role": "user", "content": prompt}],
            work=Work(params=SamplingParams(temperature=0.0, max_tokens=MOST)),
            time_left=local.FOREVER,
        )
        for number, prompt in enumerate(prompts)
    ]


def answers(*prompts: str) -> tuple[list[str], list[int]]:
    """The texts, and how many tokens of each prompt were cached."""
    texts: dict[str, str] = defaultdict(str)
    cached: dict[str, int] = {}
    for rows in local.stream(bundled_model(), submits(*prompts)):
        for row, name in enumerate(rows.request_ids):
            texts[name] += rows.texts[row]
            cached[name] = rows.cached_tokens[row]
    return [texts[str(i)] for i in range(len(prompts))], [cached[str(i)] for i in range(len(prompts))]


@pytest.mark.parametrize(("flags", "prompt"), [((), MESSAGES[0]), (("--text",), TEXT)])
def test_one_prompt_gives_its_text_and_what_was_used(
    expected: dict[str, tuple[str, int]], flags: tuple[str, ...], prompt: str
) -> None:
    done = run("--max-tokens", str(MOST), *flags, prompt)
    text, count = expected[prompt]
    assert (done.returncode, done.stderr) == (0, "")
    said, used = done.stdout.rstrip("\n").rsplit("\n", 1)
    assert said == text
    assert re.fullmatch(rf"\[1\] tokens: \d+ in, 0 cached, {count} out", used)


def test_several_prompts_are_answered_together(expected: dict[str, tuple[str, int]]) -> None:
    done = run("--max-tokens", str(MOST), *MESSAGES)
    assert (done.returncode, done.stderr) == (0, "")
    pieces = re.findall(r"^\[(\d)\] (.*)$", done.stdout, re.MULTILINE)
    used = {name: words for name, words in pieces if words.startswith("tokens: ")}
    texts = {name: "".join(words for who, words in pieces if who == name and words != used[name]) for name in used}
    assert [texts[str(i)] for i in range(1, len(MESSAGES) + 1)] == [expected[message][0] for message in MESSAGES]
    for number, message in enumerate(MESSAGES, 1):
        assert used[str(number)].endswith(f" {expected[message][1]} out")
    speakers = [name for name, _words in pieces]
    assert speakers.index("2") < len(speakers) - 1 - speakers[::-1].index("1"), "the second waited for the first"
    assert " 0 cached" in used["1"]
    assert " 0 cached" not in used["2"]


def test_a_shared_prefix_is_computed_once(expected: dict[str, tuple[str, int]]) -> None:
    texts, cached = answers(MESSAGES[0], MESSAGES[1], MESSAGES[0])
    assert texts == [expected[message][0] for message in (MESSAGES[0], MESSAGES[1], MESSAGES[0])]
    assert cached[0] == 0
    assert 0 < cached[1] < cached[2], "the third prompt shares more with the first than the second does"


@pytest.mark.parametrize(
    "environ",
    [
        {"PIPELINE_DEPTH": "1", "MAX_MULTI_STEP": "1"},
        {"PIPELINE_DEPTH": "4", "MULTI_STEP_MS": "0", "MAX_MULTI_STEP": "5"},
        {"PREFILL_CHUNK": "3", "MAX_PREFILL_TOKENS": "3", "PREFIX_CACHE": "false"},
        {"NUM_PAGES": "24", "DECODE_HEADROOM": "0"},  # 96 tokens for five answers: some are sent back to the queue
    ],
    ids=["step by step", "far ahead", "small chunks", "little memory"],
)
def test_how_steps_are_cut_does_not_show(
    expected: dict[str, tuple[str, int]], monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(f"RADIXMESH_{name}", value)
    texts, _cached = answers(*MESSAGES)
    assert texts == [expected[message][0] for message in MESSAGES]


def test_nothing_of_a_bus_is_loaded() -> None:
    code = "import sys, radixmesh.local; print({'nats', 'aiohttp', 'grpc'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "PROMPT"),
        (("--max-tokens", "0", "Hello"), "--max-tokens must be at least 1"),
        (("--max-tokens", "many", "Hello"), "--max-tokens"),
        (("--text", ""), "the prompt is empty"),
        (("word " * 4000,), "2048 tokens"),
        (("--model", "/nowhere", "Hello"), "/nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    args: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["local", *args])
    with pytest.raises(SystemExit) as ended:
        local.main()
    output = capsys.readouterr()
    assert ended.value.code in (1, 2)
    assert words in output.err
    assert output.out == ""


def test_a_failed_forward_pass_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Engine, "_run", exhausted)
    with pytest.raises(RequestError, match="out of memory") as raised:
        list(local.stream(bundled_model(), submits("Hello")))
    assert raised.value.code is ErrorCode.INTERNAL
