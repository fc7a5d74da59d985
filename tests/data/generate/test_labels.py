"""Every answer about a label is on it, or is truly not there."""

from handlens.data.generate import generate
from handlens.data.generate.labels import FAMILIES
from handlens.data.generate.receipt_talk import NOT_PRESENT


def test_answers_are_true() -> None:
    tasks = set()
    for index in range(150):
        record = generate("labels", 41, index)
        printed = " ".join(line.text for line in record.lines)
        fields = record.facts["fields"]
        for turn in record.turns:
            tasks.add(turn.task)
            name = [n for n in FAMILIES[record.facts["family"]] if n in turn.question.rstrip("?.").split()]
            if turn.task == "labels.missing":
                assert turn.answer == NOT_PRESENT
                assert name[-1] not in fields
                assert f"{name[-1]}:" not in printed.casefold()
            elif turn.task == "labels.read":
                assert turn.answer.split() == printed.split()
            elif name:
                assert turn.answer == fields[name[-1]]
                assert turn.answer in printed
            else:
                assert printed.startswith(turn.answer)
    assert tasks == {"labels.field", "labels.read", "labels.missing"}
