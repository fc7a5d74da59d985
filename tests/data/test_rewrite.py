"""Rewriting keeps the facts, asks once, goes on after a stop, and speaks to any server."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import ClassVar

import pytest

from handlens.data.facts import compare, facts_in
from handlens.data.generate import generate
from handlens.data.noise import ACTS, make_noisy
from handlens.data.rewrite import (
    ByEndpoint,
    ByRules,
    Cache,
    Pair,
    Rewriting,
    check_pair,
    open_rewriter,
    parse,
    rewrite,
    tidy,
)
from handlens.data.samples import talk
from handlens.errors import ModelError

CAPTIONS = [
    "A large red heart at the top left, a small brown star at the top.",
    "Two dogs run after a yellow ball in the park.",
    "The receipt of 14 May 2025 shows a total of 23.50 dollars.",
    "A woman with a blue umbrella stands in front of 3 shops.",
]


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_noise_keeps_the_facts(caption: str, act) -> None:
    for seed in range(6):
        noisy = act(caption, Random(seed))
        assert compare(noisy, caption).is_none, (noisy, compare(noisy, caption))


def test_noise_is_drawn_from_the_seed_and_does_damage() -> None:
    noisy = [make_noisy(CAPTIONS[seed % 4], Random(seed), level=0.6) for seed in range(40)]
    assert noisy == [make_noisy(CAPTIONS[seed % 4], Random(seed), level=0.6) for seed in range(40)]
    assert sum(text not in CAPTIONS for text in noisy) >= 38


@pytest.mark.parametrize("seed", range(40))
def test_rules_undo_noise_without_changing_a_fact(seed: int) -> None:
    caption = CAPTIONS[seed % 4]
    raw = make_noisy(caption, Random(seed), level=0.6)
    (reply,) = ByRules().write([raw])
    pair = parse(reply)
    assert check_pair(pair, raw, {}).is_none
    assert "#" not in pair.answer and "http" not in pair.answer
    assert pair.answer[-1] in ".!?"
    assert tidy(pair.answer) == pair.answer


@pytest.mark.parametrize(
    ("answer", "added", "lost"),
    [
        ("Two dogs run after a yellow ball in the park.", set(), set()),
        ("In the park, 2 dogs are running after a yellow ball.", set(), set()),
        ("Three dogs run after a yellow ball in the park.", {"3"}, {"2"}),
        ("Two dogs run after a ball in the park.", set(), {"yellow"}),
        ("Two happy dogs run after a yellow ball in the park.", {"happy"}, set()),
        ("Two dogs do not run after a yellow ball in the park.", {"not"}, set()),
    ],
)
def test_facts_added_and_lost_are_named(answer: str, added: set[str], lost: set[str]) -> None:
    difference = check_pair(Pair(question="What?", answer=answer), CAPTIONS[1], {})
    assert (difference.added, difference.lost) == (added, lost)


def test_the_record_may_back_a_fact() -> None:
    pair = Pair(question="What?", answer="Two brown dogs run after a yellow ball in the park.")
    assert check_pair(pair, CAPTIONS[1], {}).added == {"brown"}
    assert check_pair(pair, CAPTIONS[1], {"objects": [{"name": "dog", "colour": "brown"}]}).is_none


def test_true_captions_of_scenes_agree_with_their_records() -> None:
    for index in range(20):
        record = generate("scenes", 4, index, level=0.0)
        told = next((turn.answer for turn in record.turns if turn.task.endswith(".describe")), None)
        if told:
            words = {word for thing in record.things for word in (thing.shape, thing.colour, thing.size)}
            assert {next(iter(facts_in(word))) for word in words} <= facts_in(told)


def captioned(samples) -> list:
    return [
        replace(sample, chat=talk([("", caption)]), truth={})
        for sample, caption in zip(samples(4), CAPTIONS, strict=True)
    ]


class Counting(ByRules):
    """Rules that remember what they were asked."""

    asked: ClassVar[list[str]] = []

    def write(self, captions):
        self.asked.extend(captions)
        return super().write(captions)


def test_nothing_is_asked_twice_and_a_torn_cache_is_read(samples, tmp_path) -> None:
    rewriter = Counting()
    rewriter.asked.clear()
    file, given = tmp_path / "cache.jsonl", captioned(samples)
    stream = rewrite(given, rewriter, Cache(file), Rewriting(), batch=2)
    next(stream)  # the first batch of two is written; then the run is killed in the middle of a line
    with file.open("a") as torn:
        torn.write('{"id": "abc", "rep')
    counts = Rewriting()
    done = list(rewrite(given, rewriter, Cache(file), counts, batch=2))
    assert rewriter.asked == CAPTIONS
    assert (counts.read, counts.rewritten, counts.cached, counts.kept_raw) == (4, 4, 2, {})
    assert [sample.truth["raw_caption"] for sample in done] == CAPTIONS
    assert all(len(sample.chat) == 2 and sample.chat[0].content[1].strip() for sample in done)


class Liar:
    """Adds a fact, loses one, breaks the form, says nothing."""

    name = "liar"

    def write(self, captions):
        replies = [
            "Answer: only",
            "",
            f"Question: What?\nAnswer: {CAPTIONS[2]} It rains.",
            "Question: What?\nAnswer: A woman.",
        ]
        return replies[: len(captions)]


def test_changed_facts_are_refused_and_counted(samples, tmp_path) -> None:
    counts, given = Rewriting(), captioned(samples)
    assert list(rewrite(given, Liar(), Cache(tmp_path / "c"), counts)) == given
    assert counts.kept_raw == {"wrong-form": 1, "no-answer": 1, "facts-added": 1, "facts-lost": 1}
    assert [row["added"] for row in counts.refused] == [["rain"], []]
    assert counts.rewritten == 0 and counts.read == 4


@pytest.fixture
def server():
    """A server that speaks the protocol, fails once, and rewrites by the rules."""
    failures = [503]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if failures:
                self.send_error(failures.pop())
                return
            caption = body["messages"][0]["content"].split("Caption: ")[1].split("\n")[0]
            reply = {"choices": [{"message": {"content": ByRules().write([caption])[0]}}]}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1"
    httpd.shutdown()
    httpd.server_close()


def test_an_endpoint_rewrites_and_is_asked_again_after_a_failure(samples, tmp_path, server) -> None:
    counts = Rewriting()
    list(rewrite(captioned(samples), open_rewriter(f"{server}#any", jobs=2), Cache(tmp_path / "c"), counts))
    assert counts.rewritten == 4


def test_a_missing_server_is_told() -> None:
    rewriter = ByEndpoint(name="x", url="http://127.0.0.1:9/v1", tries=1)
    with pytest.raises(ModelError, match=r"no server answers at http://127.0.0.1:9/v1"):
        rewriter.write(["A dog."])


def test_the_command_goes_on(write, samples, tmp_path) -> None:
    from click.testing import CliRunner

    from handlens.cli.main import handlens

    folder, out = write(captioned(samples), "minicpm-v"), tmp_path / "out"
    args = ["data", "rewrite", str(folder), "--out", str(out), "--noise", "0.5", "--json"]
    facts = json.loads(CliRunner().invoke(handlens, args).stdout)
    assert (facts["read"], facts["rewritten"] + sum(facts["kept_raw"].values())) == (4, 4)
    assert facts["rewritten"] >= 3
    again = CliRunner().invoke(handlens, args)
    assert "holds a finished data set" in str(again.exception)
