"""The page in a real browser, at the size of a desk and of a phone; skipped where no Chromium is installed."""

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.serve.conftest import EXAMPLES, start, stop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright (extra 'dev')")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; apt install chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZES = {"desk": (1280, 900, False), "phone": (390, 844, True)}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def keep(page, name: str) -> None:
    """Keep a screenshot where ``HANDLENS_SCREENSHOTS`` names a folder."""
    if folder := os.environ.get("HANDLENS_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desk", "light"),
        ("phone", "dark"),
        pytest.param("desk", "dark", marks=pytest.mark.soak),
        pytest.param("phone", "light", marks=pytest.mark.soak),
    ],
)
def test_a_picture_is_asked_about_and_its_grid_is_drawn(browser, served, size, scheme):
    width, height, is_phone = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, is_mobile=is_phone, has_touch=is_phone, color_scheme=scheme
    )
    page = context.new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(served)
    keep(page, f"{size}-{scheme}-empty")
    page.set_input_files("#file", str(EXAMPLES / "receipt.png"))
    page.get_by_role("button", name="Remove receipt.png").wait_for()
    page.get_by_label("Your question").fill("What is the total?")
    page.keyboard.press("Enter")
    page.locator("#speed:not(:empty)").wait_for(timeout=60_000)
    # 700x1100 px in slices of 224: ceil(15.3) is over 9; of 8 and 9 cells, 2x4 is nearest to 0.64.
    assert page.locator(".frame rect").count() == 8
    grid, image = page.locator(".frame svg").bounding_box(), page.locator(".frame img").bounding_box()
    assert abs(grid["x"] - image["x"]) < 1
    assert abs(grid["y"] - image["y"]) < 1
    assert grid["height"] <= image["height"] + 1
    assert abs(grid["width"] / grid["height"] - 700 / 1100) < 0.02
    assert "576 visual tokens" in page.locator("figcaption").inner_text()
    assert page.locator("#visual").inner_text() == "576"
    assert page.locator("#memory").inner_text().endswith("MiB")
    page.get_by_label("Your question").fill("And the date?")
    page.get_by_role("button", name="Ask").click()
    page.locator(".turn").nth(3).wait_for()
    page.locator("#ask:enabled").wait_for(timeout=60_000)
    keep(page, f"{size}-{scheme}-answered")
    # Nothing is wider than the screen, and nothing was asked of another machine.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert {
        url.split("/")[0] + "//" + url.split("/")[2] for url in asked if not url.startswith(("data:", "blob:"))
    } == {served}
    assert wrong == []
    context.close()


def test_stop_paste_drop_and_keyboard(browser, served):
    context = browser.new_context(viewport={"width": 900, "height": 800})
    page = context.new_page()
    page.goto(served)
    # By keyboard alone: the first stops are the two buttons of the picture, then the question.
    focused = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id"))
    assert focused == ["choose", "shoot", "question"]
    drop = """async ([name, kind]) => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 60, height: 40 });
        const blob = await new Promise((resolve) => canvas.toBlob(resolve));
        const data = new DataTransfer();
        data.items.add(new File([blob], name, { type: 'image/png' }));
        const event = kind === 'drop' ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    page.evaluate(drop, ["dropped.png", "drop"])
    page.evaluate(drop, ["pasted.png", "paste"])
    page.get_by_role("button", name="Remove pasted.png").wait_for()
    assert page.locator("figure").count() == 2
    page.get_by_role("button", name="Remove dropped.png").click()
    assert page.locator("figure").count() == 1
    page.route("**/v1/chat/completions", lambda route: None)  # an answer that never comes
    page.get_by_label("Your question").fill("What?")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Start anew").click()
    assert page.locator(".turn").count() == page.locator("figure").count() == 0
    context.close()


def test_claims_are_checked_where_the_box_is_ticked(browser, served):
    width, height, is_phone = SIZES["phone"]
    context = browser.new_context(viewport={"width": width, "height": height}, is_mobile=is_phone)
    page = context.new_page()
    page.goto(served)
    page.set_input_files("#file", str(EXAMPLES / "shapes.png"))
    page.get_by_role("button", name="Remove shapes.png").wait_for()
    page.get_by_label("Check every claim of the answer").check()
    page.get_by_label("Your question").fill("What shape is yellow?")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.keyboard.press("Enter")
    assert asked.value.post_data_json["check"] is True
    page.get_by_role("list", name="Claims of this answer").wait_for(timeout=60_000)
    keep(page, "phone-claims")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_errors_and_claims_are_said(browser, served):
    context = browser.new_context()
    page = context.new_page()
    page.goto(served)
    final = (
        '{"choices":[{"delta":{},"finish_reason":"stop"}],"handlens":{"ended":"stop","seconds":{"first_word":0.5},'
        '"tokens_per_second":3,"memory_bytes":1048576,"claims":[{"text":"The total is 5.","verdict":"rejected",'
        '"probability":0.2,"slice":{"picture":0,"slice":3,"row":1,"column":0}}],"check":{"not_claims":["Hello!"]}}}'
    )
    said = '{"choices":[{"delta":{"content":"<b>5</b>"}}]}'
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            content_type="text/event-stream", body=f"data: {said}\n\ndata: {final}\n\ndata: [DONE]\n\n"
        ),
    )
    page.get_by_label("Your question").fill("What?")
    page.keyboard.press("Enter")
    page.get_by_text("rejected 20 %: The total is 5. (slice 3)").wait_for()  # no picture: the slice in words alone
    page.get_by_text("Not checked, no claims: Hello!").wait_for()
    assert page.locator(".turn.model .said").inner_text() == "<b>5</b>"  # an answer is text, never markup
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        status=429, headers={"retry-after": "7"}, json={"error": {"message": "too many"}}))  # fmt: skip
    page.get_by_label("Your question").fill("Again?")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("too many Try again in 7 s.").wait_for()
    assert page.get_by_label("Your question").input_value() == "Again?"
    context.close()


FOUND = {
    "fields": {
        "shop": {"answer": "<i>Bakery</i>", "present": True, "confidence": 0.912, "box": [350, 0, 700, 275],
                 "slice": {"slice": 2, "row": 0, "column": 1, "share": 0.9}},
        "tip": {"answer": "not present", "present": False, "confidence": 0.8, "box": None, "slice": None},
    },
    "calibrated": False, "memory_bytes": 2**20,
    "image": {"width": 700, "height": 1100, "grid": [2, 4], "visual_tokens": 576, "resize_factor": 0.72,
              "smallest_letter_px": 11, "warning": None, "advice": None},
}  # fmt: skip


def test_fields_are_read_and_their_place_is_shown_on_the_picture(browser, served):
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    page.goto(served)
    page.get_by_text("Read fields", exact=True).click()
    read = page.get_by_role("button", name="Read fields of the last picture")
    read.click()
    page.get_by_role("alert").get_by_text("choose one first").wait_for()
    page.set_input_files("#file", str(EXAMPLES / "receipt.png"))
    page.get_by_role("button", name="Remove receipt.png").wait_for()
    for text, said in (
        ("", "Name at least one field"),
        ("total: euros", "'euros' is no kind of field"),
        ("{", "not JSON"),
    ):
        page.get_by_label("One field a line").fill(text)
        read.click()
        page.get_by_role("alert").get_by_text(said).wait_for()
    page.route("**/v1/fields", lambda route: route.fulfill(json=FOUND))
    page.get_by_label("One field a line").fill("shop\n tip : number\n")
    with page.expect_request("**/v1/fields") as asked:
        read.click()
    body = asked.value.post_data_json
    assert body["schema"] == {"properties": {"shop": {"type": "string"}, "tip": {"type": "number"}}}
    assert (body["model"], body["image_url"]["url"][:22]) == ("nano", "data:image/png;base64,")
    place = page.get_by_role("button", name="slice 2")
    place.click()
    mark, image = page.locator("rect.mark").bounding_box(), page.locator(".frame img").bounding_box()
    assert abs(mark["x"] - image["x"] - mark["width"]) < 8  # the right half, at the top; strokes count
    assert abs(mark["y"] - image["y"]) < 8
    assert page.locator("table.fields").inner_text().split("\n")[1:] == [
        "shop\t<i>Bakery</i>\t91 %\tslice 2", "tip\tnot present\t80 %\t",
    ]  # fmt: skip
    page.get_by_text("nothing was measured for these weights").wait_for()
    place.click()
    assert page.locator("rect.mark").count() == 0
    assert page.locator("rect").count() == 8
    keep(page, "phone-fields")
    claim = {"text": "It is a bakery.", "verdict": "supported", "probability": 0.9,
             "slice": {"picture": 0, "slice": 7, "row": 3, "column": 0}}  # fmt: skip
    facts = {"images": [FOUND["image"]], "ended": "stop", "seconds": {"first_word": 1}, "tokens_per_second": 1,
             "memory_bytes": 1, "claims": [claim]}  # fmt: skip
    said = f"data: {json.dumps({'choices': [{'delta': {}}], 'handlens': facts})}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=said))
    page.get_by_label("Your question").fill("What?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="slice 7").click()
    mark, image = page.locator("rect.mark").bounding_box(), page.locator(".frame img").bounding_box()
    assert abs(mark["x"] - image["x"]) < 8  # the left half, at the bottom
    assert abs(mark["y"] + mark["height"] - image["y"] - image["height"]) < 8
    page.context.close()


def test_the_offline_page_is_named_where_it_is_served(browser, served, nano):
    from handlens.serve.app import build_app
    from handlens.serve.offline import OfflineFolder
    from handlens.serve.settings import ServerSettings

    page = browser.new_page()
    page.goto(served)  # without the folder
    page.get_by_text("nano.").wait_for()
    assert not page.get_by_role("link").is_visible()
    running = start(build_app(nano, ServerSettings(), offline=OfflineFolder(nano.folder)))
    page.goto(running.url)
    page.get_by_role("link", name="The same in this browser alone").wait_for()
    assert page.get_by_role("link").get_attribute("href") == "offline/"
    page.close()
    stop(running)
