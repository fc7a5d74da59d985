"""Write small benchmark files of our own in the formats that the community uses: ``python tests/eval/make_data.py``.

Every picture and question is invented. The files are committed; a test compares them with what this script writes.
"""

import base64
import csv
import io
import json
from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).parent / "data"
COLOURS = ("red", "green", "blue", "orange")
SHAPES = ("circle", "square")


def picture(colour: str, shape: str, side: int = 48) -> bytes:
    """One shape on white, as PNG."""
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "circle" else draw.rectangle)((8, 8, side - 8, side - 8), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def encoded(colour: str, shape: str) -> str:
    return base64.b64encode(picture(colour, shape)).decode()


def write_tsv(name: str, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (FOLDER / f"{name}.tsv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(name: str, value: object) -> None:
    (FOLDER / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_lines(name: str, rows: list[dict]) -> None:
    (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (FOLDER / name).write_text(text, encoding="utf-8")


def options(truth: str, shift: int = 0) -> tuple[dict[str, str], str]:
    """Four colours, rolled by ``shift``, and the letter of the true one."""
    rolled = [COLOURS[(place + shift) % 4] for place in range(4)]
    return dict(zip("ABCD", rolled, strict=True)), "ABCD"[rolled.index(truth)]


def choices(name: str, count: int = 4, **more: str) -> None:
    rows = []
    for number in range(count):
        texts, letter = options(COLOURS[number % 4], 2 * number)
        rows.append(
            {
                "index": number,
                "image": encoded(COLOURS[number % 4], SHAPES[number % 2]),
                "question": "What colour is the shape?",
                **texts,
                "answer": letter,
                "category": SHAPES[number % 2],
                **more,
            }
        )
    write_tsv(name, rows)


def rotations(name: str, question: str) -> None:
    """Two questions, each in four rotations; only the first row of each holds the picture."""
    rows = []
    for number, colour in enumerate(("red", "blue")):
        for shift in range(4):
            texts, letter = options(colour, shift)
            rows.append(
                {
                    "index": number + shift * 1_000_000,
                    "image": encoded(colour, "circle") if not shift else str(number),
                    "question": question,
                    "hint": "Look at the middle." if number else "",
                    **texts,
                    "answer": letter,
                    "category": "attribute",
                    "l2-category": "perception",
                    "split": "dev",
                }
            )
    write_tsv(name, rows)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    rotations("MMBench_DEV_EN", "What colour is the shape?")
    rotations("MMBench_DEV_CN", "图中的形状是什么颜色?")
    choices("MMStar")
    choices("AI2D_TEST")
    choices("SEEDBench_IMG")
    choices("RealWorldQA")
    rows = []
    for number, (kind, colour) in enumerate((("color", "red"), ("color", "blue"), ("text_translation", "green"))):
        for said in (colour, "orange"):
            rows.append(
                {
                    "index": len(rows),
                    "image": encoded(colour, "square"),
                    "image_path": f"{kind}/{number}.png",
                    "question": f"Is the square {said}? Please answer yes or no.",
                    "answer": "Yes" if said == colour else "No",
                    "category": kind,
                }
            )
    write_tsv("MME", rows)
    rows = []
    for figure in range(2):
        for question in range(2):
            rows.append(
                {
                    "index": f"VD_illusion_1_0_{figure}_{question}",
                    "image": encoded(COLOURS[figure], "circle"),
                    "question": f"Is the circle {COLOURS[question]}?",
                    "category": "VD",
                    "l2-category": "illusion",
                    "answer": "Yes" if figure == question else "No",
                }
            )
    write_tsv("HallusionBench", rows)
    write_lines(
        "coco_pope.jsonl",
        [
            {
                "question_id": number,
                "image": "red-circle.png",
                "text": f"Is there a {shape} in the image?",
                "label": "yes" if shape == "circle" else "no",
                "category": "random",
            }
            for number, shape in enumerate(("circle", "square", "star"))
        ],
    )
    (FOLDER / "images").mkdir(exist_ok=True)
    for colour in ("red", "green"):
        (FOLDER / "images" / f"{colour}-circle.png").write_bytes(picture(colour, "circle"))
    write_tsv(
        "AMBER",
        [
            {
                "index": number,
                "image": encoded("green", "circle"),
                "question": question,
                "answer": answer,
                "category": kind,
                "image_path": "green.png",
            }
            for number, (question, answer, kind) in enumerate(
                (
                    ("Is the circle green?", "yes", "discriminative-attribute-state"),
                    ("Is there a square?", "no", "discriminative-hallucination"),
                    ("Is there a circle?", "yes", "discriminative-hallucination"),
                    ("Does the circle touch the edge?", "no", "relation"),
                )
            )
        ],
    )
    texts, letter = options("green")
    write_tsv(
        "MMMU_DEV_VAL",
        [
            {
                "index": 0,
                "id": "validation_Art_1",
                "image": str([encoded("green", "circle"), encoded("red", "square")]),
                "question": "Compare <image 1> and <image 2>. What colour is the first?",
                **texts,
                "answer": letter,
                "split": "validation",
                "category": "Art",
            },
            {
                "index": 1,
                "id": "validation_Math_1",
                "image": encoded("blue", "square"),
                "question": "How many sides? <image 1>",
                "answer": "4",
                "split": "validation",
                "category": "Math",
            },
            {
                "index": 2,
                "id": "dev_Math_1",
                "image": encoded("blue", "square"),
                "question": "<image 1> Which colour?",
                **texts,
                "answer": "C",
                "split": "dev",
                "category": "Math",
            },
        ],
    )
    write_json(
        "testmini.json",
        {
            "1": {
                "question": "How many circles?",
                "query": "Hint: give an integer.\nQuestion: How many circles?",
                "choices": None,
                "answer": "1",
                "question_type": "free_form",
                "answer_type": "integer",
                "precision": 1.0,
                "image": "images/red-circle.png",
                "metadata": {"task": "figure question answering"},
            },
            "2": {
                "question": "Which colour?",
                "query": "Question: Which colour?\nChoices:\n(A) red\n(B) blue",
                "choices": ["red", "blue"],
                "answer": "red",
                "question_type": "multi_choice",
                "answer_type": "text",
                "precision": None,
                "image": "images/red-circle.png",
                "metadata": {"task": "textbook question answering"},
            },
            "3": {
                "question": "How wide?",
                "query": "Question: How wide, in cm?",
                "choices": None,
                "answer": "1.2",
                "question_type": "free_form",
                "answer_type": "float",
                "precision": 1.0,
                "image": "images/green-circle.png",
                "metadata": {"task": "geometry problem solving"},
            },
        },
    )
    write_json(
        "OCRBench.json",
        [
            {
                "dataset_name": "Own",
                "image_path": "images/red-circle.png",
                "question": "What is written?",
                "answers": ["CENTRE"],
                "type": "Regular Text Recognition",
            },
            {
                "dataset_name": "HME100k",
                "image_path": "images/red-circle.png",
                "question": "Write the formula.",
                "answers": ["\\frac { a } { b }"],
                "type": "Handwritten Mathematical Expression Recognition",
            },
        ],
    )
    write_json(
        "TextVQA_0.5.1_val.json",
        {
            "dataset_type": "val",
            "data": [
                {
                    "question_id": 1,
                    "image_id": "red-circle",
                    "question": "what word is on the sign?",
                    "answers": ["stop"] * 4 + ["the stop sign"] * 3 + ["halt"] * 3,
                },
                {"question_id": 2, "image_id": "gone", "question": "what number?", "answers": ["two"] * 10},
            ],
        },
    )
    write_json(
        "val_v1.0.json",
        {
            "dataset_name": "own",
            "dataset_split": "val",
            "data": [
                {
                    "questionId": 1,
                    "question": "What is the date?",
                    "image": "images/green-circle.png",
                    "docId": 1,
                    "answers": ["14 May 2025", "May 14, 2025"],
                },
                {
                    "questionId": 2,
                    "question": "Who signed?",
                    "image": "images/green-circle.png",
                    "docId": 1,
                    "answers": ["A. Low"],
                },
            ],
        },
    )
    write_json(
        "mm-vet.json",
        {
            "v1_0": {
                "imagename": "red-circle.png",
                "question": "What is x?",
                "answer": "-1<AND>-5",
                "capability": ["ocr", "math"],
            },
            "v1_1": {
                "imagename": "green-circle.png",
                "question": "Which colour?",
                "answer": "green<OR>lime",
                "capability": ["rec"],
            },
        },
    )
    write_tsv(
        "LLaVABench",
        [
            {
                "index": 1,
                "image": encoded("red", "circle"),
                "question": "What is shown?",
                "category": "conv",
                "caption": "A red circle on white.",
                "gpt4_ans": "The picture shows a red circle on a white ground.",
            },
            {
                "index": 2,
                "image": encoded("blue", "square"),
                "question": "Describe it.",
                "category": "detail",
                "caption": "A blue square on white.",
                "gpt4_ans": "A blue square stands in the middle of a white ground.",
            },
        ],
    )
    for language, question, reference in (
        ("french", "Que voit-on ?", "Un cercle rouge sur fond blanc."),
        ("japanese", "何が見えますか。", "白い背景に赤い円があります。"),
    ):
        write_lines(
            f"multilingual_llava_bench/{language}.jsonl",
            [
                {
                    "question_id": 1,
                    "image": "../images/red-circle.png",
                    "text": question,
                    "gpt_answer": reference,
                    "caption": "A red circle.",
                    "category": "conv",
                }
            ],
        )
    write_json(
        "response_template.json",
        [
            {
                "question_type": "attribute",
                "question_topic": "indoor",
                "image_id": "a",
                "image_src": "images/red-circle.png",
                "image_content": ["circle"],
                "question": "What colour is the circle?",
                "gt_answer": "The circle is red.",
            },
            {
                "question_type": "counting",
                "question_topic": "indoor",
                "image_id": "a",
                "image_src": "images/red-circle.png",
                "image_content": ["circle"],
                "question": "How many circles?",
                "gt_answer": "There is one circle.",
            },
        ],
    )
    write_lines(
        "ObjHalBench.jsonl",
        [
            {
                "image_id": 7,
                "image": "images/red-circle.png",
                "question": "Describe the image in detail.",
                "objects": ["sports ball"],
                "captions": ["A man kicks a ball.", "A person with a dog."],
            },
            {
                "image_id": 8,
                "image": "images/green-circle.png",
                "question": "What do you see?",
                "objects": ["apple"],
                "captions": ["A green apple on a table."],
            },
        ],
    )
    write_json("query_generative.json", [{"id": 1, "image": "images/red-circle.png", "query": "Describe this image."}])
    write_json(
        "annotations.json", [{"id": 1, "type": "generative", "truth": ["ball", "grass"], "hallu": ["dog", "tree"]}]
    )
    write_json(
        "relation.json", {"ball": ["football"], "grass": ["lawn"], "dog": ["puppy"], "tree": ["oak"], "cat": ["kitten"]}
    )
    (FOLDER / "safe_words.txt").write_text("image\npicture\n", encoding="utf-8")


if __name__ == "__main__":
    main()
