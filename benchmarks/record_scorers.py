"""Record what the reference scorers say to made-up answers; run it in an environment of its own.

Needs the files of ``ms-vlmeval`` and ``lmms-eval`` (``pip download --no-deps``, unpacked under REFERENCE) and what
their scorers import (pandas, nltk, openai, Levenshtein, latex2sympy2 ...). Their package roots import everything,
torch and its picture package too, so single modules are imported past them. Nothing here is needed to run the tests.
"""
# ruff: noqa: B023, B905

import importlib
import json
import os
import random
import sys
import tempfile
import types
from pathlib import Path

import pandas as pd

REFERENCE = Path(os.environ["REFERENCE"])
HERE = Path(__file__).parents[1] / "tests" / "golden" / "scorers"
COUNT = 240
RNG = random.Random(20260101)
os.environ.setdefault("OPENAI_API_KEY", "none")
sys.path.insert(0, str(REFERENCE))
for name in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils", "lmms_eval", "lmms_eval.tasks"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(REFERENCE / name.replace(".", "/"))]
KIT = {"package": "ms-vlmeval", "version": "0.0.20"}
LMMS = {"package": "lmms-eval", "version": "0.7.3"}


def load(name: str):
    return importlib.import_module(name)


def save(name: str, source: dict, cases: list, **more) -> None:
    text = json.dumps(
        {"reference": source, **more, "cases": cases}, ensure_ascii=False, indent=None, separators=(",", ":")
    )
    (HERE / f"{name}.json").write_text(text.replace('],["', '],\n["').replace("},{", "},\n{") + "\n", encoding="utf-8")
    print(name, len(cases))


WORDS = (
    "stop",
    "the stop sign",
    "Two dogs",
    "a red car",
    "don't walk",
    "dont walk",
    "it's 3.5",
    "1,000",
    "none",
    "zero",
    "yes",
    "No.",
    "coca-cola",
    "café",
    "東京",
    "10:30",
    "$23.50",
    "(b)",
    "ten",
    "An apple",
    "CENTRE",
    "U.S.A.",
)
TAILS = (
    "",
    ".",
    "!",
    " ",
    "\n",
    "?",
    ", I think",
    " / maybe",
    "; yes",
    "...",
    ' "quoted"',
    " [x]",
    "\t",
    "'s",
    " @home",
    " - ok",
    "_a",
    "=1",
    "\\frac{a}{b}",
    "🙂",
    " the",
    " , , ,",
    ".5",
    "1.",
    "." * 40,
)
UGLY = (
    "",
    " ",
    "\n\n",
    "?" * 50,
    "no no no no",
    "A" * 300,
    "\x00",
    "‮abc",
    "none of these",
    "I cannot tell from the image.",
    "0",
    "-",
    "a an the",
    ",",
    "nan",
    "inf",
    "1e5",
    "١٢٣",
    "Z",
    "z",
    "B",
    "A B C D",
    "{",
    "{}",
    "%s",
    "</answer>",
    "9" * 30,
)


def answer() -> str:
    if RNG.random() < 0.2:
        return RNG.choice(UGLY)
    text = RNG.choice(WORDS) + RNG.choice(TAILS)
    text = text.upper() if RNG.random() < 0.15 else text
    return text + " " + RNG.choice(WORDS) if RNG.random() < 0.2 else text


def vqa() -> None:
    evalai = load("lmms_eval.tasks._task_utils.vqa_eval_metric").EvalAIAnswerProcessor
    kit = load("vlmeval.dataset.utils.vqa_eval")
    cases = []
    for _ in range(COUNT):
        truths = [answer() for _ in range(3)]
        truths = [RNG.choice(truths) for _ in range(10)]
        said = RNG.choice([*truths, answer()])
        process = evalai()
        normal = [process(text) for text in truths]
        given = process(said)
        scores = [min(1, sum(o == given for j, o in enumerate(normal) if j != i) / 3) for i in range(10)]
        line = kit.process_line({"answer": str(truths), "prediction": said}, method="vqa_score")
        cases.append([said, truths, given, sum(scores) / 10, line["pred"], sum(line["match"]) / 10])
    save(
        "vqa",
        {"evalai": LMMS, "kit": KIT},
        cases,
        fields=["answer", "truths", "evalai", "evalai_score", "kit", "kit_score"],
        contractions=evalai.CONTRACTIONS,
    )


def anls() -> None:
    kit = load("vlmeval.dataset.utils.vqa_eval")
    cases = []
    for _ in range(COUNT):
        truths = [answer() for _ in range(RNG.randint(1, 3))]
        said = answer()
        if RNG.random() < 0.6:
            chars = list(RNG.choice(truths))
            for _ in range(RNG.randint(0, 4)):
                if chars:
                    chars[RNG.randrange(len(chars))] = RNG.choice("abc 1X")
            said = "".join(chars) + ("x" * RNG.choice((0, 0, 1, 30)))
        line = kit.process_line({"answer": str(truths), "prediction": said}, method="anls")
        cases.append([said, truths, float(kit.hit_calculate([line], "DocVQA_VAL")[0])])
    save("anls", KIT, cases, fields=["answer", "truths", "score"])


OPTIONS = (
    "red",
    "green",
    "blue",
    "a teddy bear",
    "rabbit",
    "12",
    "1.5 m",
    "None of the above",
    "東京",
    "The second",
    "dog",
    "dogs",
    "yes",
    "no",
)


def choice_answer(options: dict[str, str]) -> str:
    letter, text = RNG.choice(list(options.items()))
    form = RNG.choice(
        (
            "{l}",
            "({l})",
            "{l}.",
            "{l}. {t}",
            "The answer is {l}",
            "The answer is ({l}).",
            "{t}",
            "It is {t}.",
            "{l}:{t}",
            "Answer: {l}\nBecause I see {t} in the picture, and nothing else at all here",
            "**{l}**",
            "Option {l}",
            "{l} or {m}",
            "not {t} but {u}",
            "{l}{m}",
            "I think {l} {t} is right, since the object is clearly {t}",
            "A {t}",
            "{l}\n\n{m}",
            "{{{l}}}",
            "'{l}'",
            "\\boxed{{{l}}}",
            "{ll}",
            "the {t} is what we all see in this image",
        )
    )
    other = RNG.choice(list(options))
    return form.format(l=letter, t=text, m=other, u=options[other], ll=letter.lower())


def choices() -> None:
    match = load("vlmeval.utils.matching_util")
    mmmu = load("lmms_eval.tasks._task_utils.mmmu_mcq_utils")
    mmmu.random.choice = lambda options: ""  # the draw at random, made visible
    refusals = (
        "Cannot determine the answer",
        "Failed to obtain answer via API",
        "Z",
        "Z.",
        "Sorry, I can't help with images of people yet.",
    )
    cases = []
    for _ in range(COUNT + 60):
        options = dict(zip("ABCDEF", RNG.sample(OPTIONS, RNG.randint(2, 6))))
        said = RNG.choice((answer, lambda: RNG.choice(refusals)))() if RNG.random() < 0.25 else choice_answer(options)
        kit = match.can_infer(said, dict(options))
        cases.append([said, options, kit or "", mmmu.parse_mmmu_multi_choice_response(said, list(options), options)])
    save("choices", {"kit": KIT, "mmmu": LMMS}, cases, fields=["answer", "options", "kit", "mmmu"])


def circular() -> None:
    multiple = load("vlmeval.dataset.utils.multiple_choice")
    rows, cases = [], []
    for group in range(60):
        texts = RNG.sample(OPTIONS[:4], 4)
        truth = RNG.choice(texts)
        skill = RNG.random()
        for shift in range(4):
            rolled = texts[shift:] + texts[:shift]
            letter = "ABCD"[rolled.index(truth)]
            said = letter if RNG.random() < skill else choice_answer(dict(zip("ABCD", rolled)))
            rows.append(
                {
                    "index": group + shift * 1_000_000,
                    **dict(zip("ABCD", rolled)),
                    "answer": letter,
                    "prediction": said,
                    "question": "What?",
                    "category": RNG.choice("xy"),
                }
            )
    data = pd.DataFrame(rows)
    with tempfile.TemporaryDirectory() as folder:
        multiple.timestr = lambda *a: "golden"
        done = multiple.mcq_circular_eval(
            None, data.copy(), data[["index", "answer"]].copy(), 1, f"{folder}/r.pkl", "MMBench"
        )
        plain = multiple.mcq_vanilla_eval(
            None, data.copy(), data[["index", "answer"]].copy(), 1, f"{folder}/v.pkl", "MMStar"
        )
    hits = dict(zip(done["index"].tolist(), done["hit"].tolist()))
    for row, hit in zip(rows, plain["hit"].tolist()):
        cases.append(
            [row["index"], {letter: row[letter] for letter in "ABCD"}, row["answer"], row["prediction"], int(hit)]
        )
    save(
        "circular",
        KIT,
        cases,
        fields=["index", "options", "truth", "answer", "hit"],
        circular={str(k): int(v) for k, v in hits.items()},
    )


def opened() -> None:
    mmmu = load("lmms_eval.tasks.mmmu.utils")
    cases = []
    numbers = ("12", "12.5", "1,234", "-3", "0.333", "1e3", "7", "x", "north", "A", "3/4", "1,23")
    forms = (
        "{n}",
        "The answer is {n}",
        "So x = {n}",
        "Therefore, the result is {n}.",
        "It could be {n} or {m}.\nFinal answer {n}",
        "first 5. Then {n}",
        "{n} cm",
        "answer: {n}\n\n",
        "is ",
        "=",
        "thus {m}\nso {n}",
        "The Result. So {n}",
        "{n}{m}",
        ". ",
    )
    for _ in range(COUNT):
        truth = [RNG.choice(numbers) for _ in range(RNG.randint(1, 2))]
        said = (
            answer()
            if RNG.random() < 0.25
            else RNG.choice(forms).format(n=RNG.choice((*truth, RNG.choice(numbers))), m=RNG.choice(numbers))
        )
        parsed = mmmu.parse_open_response(said)
        cases.append([said, truth, sorted(map(str, parsed)), mmmu.eval_open(truth, parsed)])
    save("mmmu_open", LMMS, cases, fields=["answer", "truths", "parsed", "right"])


def mathvista() -> None:
    kit = load("vlmeval.dataset.utils.mathvista")
    official = load("lmms_eval.tasks.mathvista.mathvista_evals").MathVistaEvaluator()
    cases = []
    for _ in range(COUNT + 60):
        kind = RNG.choice(("choice", "integer", "float", "text", "list"))
        options = RNG.sample(OPTIONS, 4) if kind == "choice" else []
        precision = RNG.choice((1, 2)) if kind == "float" else 0
        truth = {
            "choice": lambda: RNG.choice(options),
            "integer": lambda: str(RNG.randint(-3, 40)),
            "float": lambda: str(round(RNG.uniform(0, 9), precision)),
            "text": lambda: "north",
            "list": lambda: "[1, 2]",
        }[kind]()
        said = RNG.choice(
            (
                truth,
                truth + ".",
                " " + truth,
                truth + "0",
                "7",
                "0.5",
                "1e2",
                "[1,2]",
                "North",
                "(B)",
                "B",
                "(A) x",
                "",
                "nan",
                "inf",
                answer(),
                *options,
            )
        )
        question, typed = ("multi_choice", "text") if kind == "choice" else ("free_form", kind)
        line = {
            "question_type": question,
            "answer_type": typed,
            "choices": str(options),
            "answer": truth,
            "res": said,
            "prediction": said,
            "answer_option": "ABCD"[options.index(truth)] if options else "",
        }
        try:
            hit = bool(kit.post_check(line, prefetch=False))
        except OverflowError:
            hit = "OverflowError"
        value = official.normalize_extracted_answer(said, options, question, typed, precision)
        cases.append([said, truth, question, typed, options, precision, hit, bool(official.safe_equal(value, truth))])
    save(
        "mathvista",
        {"kit": KIT, "official": LMMS},
        cases,
        fields=["extracted", "truth", "question_type", "answer_type", "choices", "precision", "kit", "official"],
    )


def yes_no() -> None:
    kit = load("vlmeval.dataset.utils.yorn")
    lmms = load("lmms_eval.tasks.mme.utils")
    words = (
        "yes",
        "no",
        "Yes, it is",
        "No, there is not",
        "YES.",
        "no!",
        "y",
        "N",
        "not",
        "I think yes",
        "yes and no",
        "Yes-man",
        "nope",
        "know",
        "yesterday",
        "Yes\n\nNo",
        "(Yes)",
        "No;",
        "not yes",
        "'no'",
        "là no",
        "  yes",
        "Nothing",
        '"Yes"',
    )
    cases = []
    for _ in range(COUNT):
        said = RNG.choice(words) + RNG.choice(TAILS) if RNG.random() < 0.85 else RNG.choice(UGLY)
        mme = {"yes": "Yes", "no": "No", "other": ""}[lmms.parse_pred_ans(said)]
        cases.append([said, {"Unknown": ""}.get(kit.YOrN_Extraction(said), kit.YOrN_Extraction(said)), mme])
    save("yes_no", {"kit": KIT, "mme": LMMS}, cases, fields=["answer", "kit", "mme"])


def totals() -> None:
    kit = load("vlmeval.dataset.utils.yorn")
    said = lambda: RNG.choice(("Yes", "No", "Yes", "No", "Unknown"))  # noqa: E731

    def frame(rows):
        data = pd.DataFrame(rows)
        data["score"] = data["answer"].str.lower() == data["extracted"].str.lower()
        return data

    def plain(value):
        return {str(k): float(v) for k, v in value.items()}

    kit.load = lambda data: data
    rows = [
        {"category": c, "image_path": f"{c}/{i}", "answer": a, "extracted": said()}
        for c in ("OCR", "color", "code_reasoning", "text_translation")
        for i in range(27)
        for a in ("Yes", "No")
    ]
    mme = kit.MME_rating(frame(rows)).iloc[0]
    cases = {"mme": {"rows": rows, "figures": plain(dict(mme))}}
    rows = [
        {
            "index": f"{c}_{s}_1_{i}_{f}_{q}",
            "category": c,
            "l2-category": s,
            "answer": RNG.choice(("Yes", "No")),
            "extracted": said(),
        }
        for c, s in (("VD", "illusion"), ("VS", "chart"))
        for i in range(14)
        for f in range(3)
        for q in range(3)
    ]
    got = kit.Hallusion_rating(frame(rows)).iloc[0]
    cases["hallusion"] = {"rows": rows, "figures": {k: float(got[k]) for k in ("aAcc", "fAcc", "qAcc")}}
    rows = [
        {
            "index": i,
            "category": RNG.choice(("random", "popular", "adversarial", "random,popular")),
            "answer": RNG.choice(("Yes", "No")),
            "extracted": said(),
        }
        for i in range(240)
    ]
    got = kit.POPE_rating(frame(rows))
    cases["pope"] = {
        "rows": rows,
        "figures": {
            r["split"]: {k: float(r[k]) for k in ("Overall", "acc", "precision", "recall")} for _, r in got.iterrows()
        },
    }
    kinds = (
        "discriminative-attribute-state",
        "discriminative-attribute-number",
        "discriminative-hallucination",
        "discriminative-relation",
        "relation",
    )
    rows = [
        {
            "category": RNG.choice(kinds),
            "image_path": f"{i % 90}",
            "answer": RNG.choice(("yes", "no")),
            "extracted": said(),
        }
        for i in range(240)
    ]
    cases["amber"] = {"rows": rows, "figures": plain(dict(kit.AMBER_rating(frame(rows)).iloc[0]))}
    vet = load("vlmeval.dataset.utils.mmvet")
    vet.load = lambda data: data
    rows = [
        {
            "category": ",".join(RNG.sample(("rec", "ocr", "know", "gen", "spat", "math"), RNG.randint(1, 3))),
            "score": RNG.randint(0, 10) / 10,
        }
        for _ in range(240)
    ]
    got, _ = vet.MMVet_acc(pd.DataFrame(rows))
    cases["mm_vet"] = {"rows": rows, "figures": {r["Category"]: float(r["acc"]) for _, r in got.iterrows()}}
    sys.modules["vlmeval.dataset.smp"] = load("vlmeval.smp")
    sys.modules["vlmeval.dataset.smp.log"] = load("vlmeval.smp.log")
    llava = load("vlmeval.dataset.utils.llavabench")
    rows = [
        {
            "category": RNG.choice(("conv", "detail", "complex")),
            "score": RNG.randint(1, 10),
            "gpt4_score": RNG.randint(4, 10),
        }
        for _ in range(240)
    ]
    got = llava.LLaVABench_score(pd.DataFrame(rows))
    cases["llava"] = {
        "rows": rows,
        "figures": {r["split"]: float(r["Relative Score (main)"]) for _, r in got.iterrows()},
    }
    replies = [
        RNG.choice(("8 9", "8, 9", "7.5 8\nbecause", "10 10", "8", "eight nine", "", "1 2 3", "Score: 8 9", "9 8 \nx"))
        for _ in range(200)
    ]
    cases["llava_replies"] = {"rows": replies, "figures": [llava.parse_score(reply) for reply in replies]}
    save("totals", KIT, [], **cases)


def ocrbench() -> None:
    kit = load("vlmeval.dataset.utils.ocrbench")
    formula = "Handwritten Mathematical Expression Recognition"
    kinds = (
        "Regular Text Recognition",
        "Scene Text-centric VQA",
        "Doc-oriented VQA",
        "Key Information Extraction",
        formula,
    )
    cases = []
    for _ in range(COUNT):
        kind = RNG.choice(kinds)
        truths = [
            RNG.choice(("\\frac { a } { b }", "x ^ 2", "a + b")) if kind == formula else answer()
            for _ in range(RNG.randint(1, 3))
        ]
        said = RNG.choice(
            (
                RNG.choice(truths),
                RNG.choice(truths).upper(),
                "It says " + RNG.choice(truths) + ".",
                RNG.choice(truths).replace(" ", ""),
                answer(),
                RNG.choice(truths).replace(" ", "\n"),
            )
        )
        kit.load = lambda data: data
        kit.get_intermediate_file_path = lambda *a: ""
        kept = {}
        kit.dump = lambda value, path, kept=kept: kept.update(value)
        kit.tqdm = lambda value: value
        kit.OCRBench_eval(pd.DataFrame([{"prediction": said, "answer": str(truths), "category": kind}]))
        cases.append([said, truths, kind == formula, int(kept["Final Score"])])
    save("ocrbench", KIT, cases, fields=["answer", "truths", "is_formula", "hit"])


def chair() -> None:
    """CHAIR's sums, given the objects; finding them needs NLTK's downloads, which is another matter."""
    lmms = load("lmms_eval.tasks.coco_cap_chair.utils")
    names = ("person", "dog", "cat", "car", "cup", "hot dog")
    cases = [
        {"answer": RNG.sample(names, RNG.randint(1, 3)), "pred": sorted(set(RNG.choices(names, k=RNG.randint(0, 4))))}
        for _ in range(COUNT)
    ]
    rates = {
        "mention_rate": lmms.coco_cap_chair_aggregate_results_chair_i(cases),
        "response_rate_of_all": lmms.coco_cap_chair_aggregate_results_chair_s(cases),
        "recall": lmms.coco_cap_chair_aggregate_results_recall(cases),
    }
    save("chair", LMMS, cases, rates=rates, objects=sorted(set(lmms.INVERSE_SYNONYM_DICT.values())))


if __name__ == "__main__":
    for record in (vqa, anls, choices, circular, opened, mathvista, yes_no, totals, ocrbench, chair):
        record()
