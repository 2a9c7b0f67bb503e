"""What a run reports: its losses as a table and a picture, the answers' accuracy by kind."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from training import curve
from training.checkpoint import Progress
from training.evaluate import by_kind, chosen, judge
from training.losslog import EVERY, LossLog


def test_losses_are_averaged_and_a_resumed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    path.write_text("of an older run")
    progress = Progress()
    for start in (0, EVERY):  # the last step's row is taken back
        progress.steps = start
        log = LossLog(path, ["facts"], progress)
        for step in range(start + 1, start + EVERY + 1):
            progress.steps, progress.tokens, progress.seconds = step, 100 * step, 0.5 * step
            log.add(progress, float(step - start), None)
        progress.steps += 1
        log.add(progress, 1.0, {"all": 0.5, "facts": 0.25})
    assert path.read_text().splitlines() == [
        "step,tokens,seconds,train,heldout all,heldout facts",
        "10,1000,5,5.5000,,",
        "20,2000,10,5.5000,,",
        "21,2000,10,1.0000,0.5000,0.2500",
    ]


def test_the_picture_has_a_line_for_every_loss(tmp_path: Path) -> None:
    table = tmp_path / "loss.csv"
    header = "step,tokens,seconds,train,heldout all,heldout odd"
    table.write_text(f"{header}\n1,100000,1,4.0,4.1,3\n9,900000,9,0.1,,\n9,900000,9,0.05,0.04,1\n")
    picture = ElementTree.fromstring(curve.draw(curve.read(table)))  # noqa: S314
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 2]
    places = [tuple(map(float, point.split(","))) for line in lines for point in line.attrib["points"].split()]
    assert all(0 <= x <= curve.WIDTH and 0 <= y <= curve.HEIGHT for x, y in places)
    assert places[0][0] < places[2][0]
    assert places[0][1] < places[2][1]  # losses fall, and down is more


def test_answers_are_counted_by_kind() -> None:
    questions = [
        {"kind": "facts", "messages": [{"role": "user", "content": "?"}], "check": {"contains": "Paris"}},
        {"kind": "facts", "messages": [{"role": "user", "content": "??"}], "check": {"contains": "Rome"}},
        {"kind": "json", "messages": [{"role": "user", "content": "???"}], "check": {"json": {"a": 1}}},
    ]
    answered = judge(questions, ["It is Paris.", "Romeo", '{"a":  1}'])
    assert [item.right for item in answered] == [True, False, True]
    assert by_kind(answered) == {"facts": (1, 2), "json": (1, 1)}
    assert chosen(questions, ["facts"], 1) == questions[:1]
    assert chosen(questions, None, None) == questions
