"""The page that runs nano in the browser: its JavaScript against the Python core, and its answers without a network."""

import base64
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.serve.conftest import EXAMPLES, start, stop
from tests.serve.test_page import CHROMIUM, FLAGS, keep

import handlens
from handlens.core.chat import ask
from handlens.core.images import open_picture
from handlens.core.loops import LoopGuard
from handlens.core.patches import key_positions, normalise, position_ids, to_patches
from handlens.core.sampling import Sampling
from handlens.core.slicing import cut, plan_slices
from handlens.export.web import grid_logs
from handlens.serve.offline import OfflineFolder
from handlens.serve.settings import ServerSettings

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright (extra 'dev')")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; apt install chromium")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "slicing.json").read_text(encoding="utf-8"))
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def site(nano):
    from handlens.serve.app import build_app

    offline = OfflineFolder(handlens.PACKAGED["nano"])
    running = start(build_app(nano, ServerSettings(), offline=offline))
    yield f"{running.url}/offline/"
    stop(running)
    assert not offline.files()["index.html"].exists(), "the folder outlives the server"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def modules(browser, site):
    """A bare page of the same origin, for calling the modules."""
    page = browser.new_page()
    page.goto(f"{site}icon.svg")
    return page


def run(page, body: str, given=None):
    """Call JavaScript that imports modules of the page; ``given`` is its argument."""
    return page.evaluate(f"async (given) => {{ {body} }}", given)


def drawn(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a picture with noise, hard edges, slopes and letters."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 255, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
    noise = rng.integers(0, 256, (height, width, 3))
    image = Image.fromarray(np.where(rng.random((height, width, 1)) < 0.3, noise, slope).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.rectangle((width // 4, height // 4, width // 2, height // 2), fill=(255, 255, 255), outline=(0, 0, 0))
    pen.text((width // 4 + 2, height // 4 + 2), "Total 12.50", fill=(0, 0, 0))
    return image


def raw(image: Image.Image) -> dict[str, object]:
    return {"width": image.width, "height": image.height, "data": base64.b64encode(image.tobytes()).decode()}


BYTES = "const bytesOf = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));"
SUM = "const hash = async (data) => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', data))).join();"


def hashed(values: bytes) -> str:
    import hashlib

    return ",".join(map(str, hashlib.sha256(values).digest()))


# ---- the same preparation --------------------------------------------------------------------------------------------


def test_slices_equal_the_golden_table(modules):
    sizes = [row[:2] for row in GOLDEN["rows"]]
    found = run(
        modules,
        """const { planSlices } = await import('./slicing.js');
        return given.sizes.map(([width, height]) => given.most.map((max_slices, at) => {
            const plan = planSlices(width, height, { side_px: 448, patch_px: 14, max_slices, logs: given.logs[at] });
            return plan.grid ? [plan.grid.columns, plan.grid.rows, ...plan.overview, ...plan.refined,
                plan.cell[1] / 14, plan.cell[0] / 14, plan.num_slices] : [0, 0, ...plan.overview, 0, 0, 0, 0, 1];
        }));""",
        {"sizes": sizes, "most": GOLDEN["max_slices"], "logs": [grid_logs(most) for most in GOLDEN["max_slices"]]},
    )
    assert found == [row[2] for row in GOLDEN["rows"]]


def test_slices_equal_python_where_two_grids_are_equally_near(modules):
    # Shapes of grids, their squares and square roots make ties, which the last bit of a logarithm decides.
    drawing = random.Random(5)
    sizes = [(a * k, b * k) for a, b in itertools.product(range(1, 17), repeat=2) for k in (29,)]
    sizes += [(drawing.randint(1, 4000), drawing.randint(1, 4000)) for _ in range(500)]
    sizes += [(side + off, side) for side in range(200, 900, 50) for off in (0, 1)]
    rules = {"side_px": 224, "patch_px": 14, "max_slices": 9, "logs": grid_logs(9)}
    found = run(
        modules,
        """const { planSlices } = await import('./slicing.js');
        return given.sizes.map(([width, height]) => {
            const { grid, overview, refined } = planSlices(width, height, given.rules);
            return [grid && [grid.columns, grid.rows], overview, refined];
        });""",
        {"sizes": sizes, "rules": rules},
    )
    for size, (grid, overview, refined) in zip(sizes, found, strict=True):
        plan = plan_slices(*size, side_px=224)
        ours = [plan.grid.columns, plan.grid.rows] if plan.grid else None
        assert (grid, overview, refined) == (ours, list(plan.overview), list(plan.refined) if plan.refined else None)


def test_resized_pixels_equal_pillow_byte_for_byte(modules):
    for (width, height), to in (
        ((640, 480), (252, 196)), ((300, 200), (672, 448)), ((61, 47), (224, 14)), ((700, 1100), (182, 280)),
        ((1, 9), (70, 84)), ((2000, 40), (140, 42)), ((224, 300), (224, 150)), ((33, 210), (210, 210)),
        ((200, 200), (150, 100)), ((200, 200), (151, 100)), ((100, 90), (98, 98)),  # across first, down first, across
    ):  # fmt: skip
        image = drawn(width, height, seed=width)
        found = run(
            modules,
            f"""{BYTES} {SUM} const {{ resize }} = await import('./pixels.js');
            const made = resize({{ ...given, data: bytesOf(given.data) }}, given.to);
            return [made.width, made.height, await hash(made.data)];""",
            {**raw(image), "to": to},
        )
        expected = image.resize(to, Image.Resampling.BICUBIC)
        assert found == [*to, hashed(expected.tobytes())], f"{width}x{height} to {to}"


def test_patches_of_every_slice_are_equal(modules):
    rules = {"side_px": 224, "patch_px": 14, "max_slices": 9, "logs": grid_logs(9)}
    for width, height in ((640, 480), (150, 90), (333, 1001)):
        image = drawn(width, height, seed=3)
        found = run(
            modules,
            f"""{BYTES} {SUM} const {{ cut }} = await import('./pixels.js');
            const {{ planSlices }} = await import('./slicing.js');
            const {{ toPatches }} = await import('./patches.js');
            const picture = {{ ...given.picture, data: bytesOf(given.picture.data) }};
            const slices = cut(picture, planSlices(picture.width, picture.height, given.rules));
            return Promise.all(slices.map((slice) => hash(toPatches(slice, 14).values)));""",
            {"picture": raw(image), "rules": rules},
        )
        slices = cut(image, plan_slices(width, height, side_px=224))
        assert found == [hashed(to_patches(normalise(one)).tobytes()) for one in slices]


def test_positions_are_equal(modules):
    shapes = [(1, 70), (16, 16), (25, 49), (13, 20), (55, 3), (100, 2)]
    found = run(
        modules,
        """const { positionIds, keyPositions } = await import('./patches.js');
        return given.map(([rows, columns]) => [
            Array.from(positionIds(rows, columns, { table_side: 70, rule: 'bucketised' }), Number),
            Array.from(positionIds(rows, columns, { table_side: 70, rule: 'floor' }), Number),
            Array.from(keyPositions(rows, columns, 16))]);""",
        shapes,
    )
    for (rows, columns), (bucketised, floor, keys) in zip(shapes, found, strict=True):
        assert bucketised == position_ids(rows, columns).tolist()
        assert floor == position_ids(rows, columns, rule="floor").tolist()
        # The last bit of a float32 power times at most 100 patches.
        np.testing.assert_allclose(np.reshape(keys, (rows * columns, 16)), key_positions(rows, columns, 16), atol=2e-5)


STRINGS = [
    "", " ", "What is the total?", "it's DON'T we'LL 'ſ I'm", "a  b\t\nc \r\n\r\n  d", "12345 6,7.89€ £5 –",
    "naïve Straße ñ",
    "日本語 και Ελληνικά", "👩‍👩‍👧 \u0085x\ufeffy\u00a0z", "<image>not a picture</image> <unk><|im_end|> <im",
    "a<unk>b <slice>",
    "x" * 300, "\u2028line\u3000", "ends with spaces   ", "e\u0301 ﬁ ﷺ", "1½ ² Ⅳ ٣",
]  # fmt: skip


def test_token_ids_and_texts_are_equal(modules, nano):
    drawing = random.Random(9)
    letters = "abc XYZ 019 '\n\t.,-€éß日ſK<>|_\u00a0\u0085"
    strings = STRINGS + ["".join(drawing.choices(letters, k=drawing.randint(1, 40))) for _ in range(500)]
    found = run(
        modules,
        """const { Tokenizer, TextStream } = await import('./tokenizer.js');
        const rules = await (await fetch('model.json')).json();
        const tokenizer = new Tokenizer(await (await fetch('tokenizer.json')).json(), rules.pattern);
        return given.map((text) => {
            const { ids } = tokenizer.encode(text);
            const stream = new TextStream(tokenizer);
            return [ids, ids.map((id) => stream.push(id)).join('')];
        });""",
        strings,
    )
    for text, (ids, said) in zip(strings, found, strict=True):
        assert ids == nano.tokenizer.encode(text).tolist(), repr(text)
        assert said == nano.tokenizer.decode(ids), repr(text)


def test_prompts_are_equal(modules, nano):
    sizes = [(640, 480), (150, 90), (333, 1001), (2000, 2000)]
    questions = ["What is the total?", "Say <unk> and <image>.", "Qué\n\nlínea?"]
    found = run(
        modules,
        """const { planSlices } = await import('./slicing.js');
        const { buildPrompt } = await import('./prompt.js');
        const { Tokenizer } = await import('./tokenizer.js');
        const rules = await (await fetch('model.json')).json();
        const tokenizer = new Tokenizer(await (await fetch('tokenizer.json')).json(), rules.pattern);
        const plansOf = (size) => size ? [planSlices(...size, rules.slicing)] : [];
        return given.map(([size, question]) => buildPrompt(question, plansOf(size), rules, tokenizer));""",
        [[size, question] for size in (*sizes, None) for question in questions],
    )
    from handlens.core.prompt import build_prompt

    asked = [(size, question) for size in (*sizes, None) for question in questions]
    for (size, question), prompt in zip(asked, found, strict=True):
        plans = [plan_slices(*size, side_px=nano.info.side_px, max_slices=nano.info.max_slices)] if size else []
        expected = build_prompt(ask(question, len(plans)), plans, nano.family, nano.tokenizer, nano.info.num_queries)
        assert prompt["ids"] == expected.ids.tolist()
        assert prompt["isVisual"] == expected.is_visual.tolist()


def test_loops_end_where_python_ends_them(modules):
    drawing = random.Random(2)
    answers = [[7, 8] * 60, [5] * 120, [1, 2, 3] * 31 + [9] * 96, list(range(20)) * 9]
    answers += [[drawing.randint(0, 2) for _ in range(400)] for _ in range(5)]
    found = run(
        modules,
        """const { LoopGuard } = await import('./decoding.js');
        return given.map((ids) => { const guard = new LoopGuard(); return ids.map((id) => guard.push(id)); });""",
        answers,
    )
    for ids, ours in zip(answers, found, strict=True):
        guard = LoopGuard()
        assert ours == [guard.push(token) for token in ids]


# ---- the same answers, without a network -----------------------------------------------------------------------------

ASKED = [
    ("receipt.png", "What is the total?"),
    ("receipt.png", "What is the tip?"),
    ("shapes.png", "What shape is yellow?"),
    ("shapes.png", "What color is the triangle?"),
]
CLOSE = 0.25
"""Gap of two log-probabilities within which arithmetic of other eight-bit kernels may choose the other token."""


def engine_answer(nano, name: str, question: str) -> tuple[str, bool]:
    """Return the answer up to the first close decision, and whether it is the whole one."""
    gaps: list[float] = []

    def watch(logprobs: np.ndarray) -> None:
        second, first = np.sort(logprobs)[-2:]
        gaps.append(first - second)

    seen = nano.see([open_picture(EXAMPLES / name)])
    tokens = list(nano.answer(ask(question), seen, Sampling(max_tokens=256, watch=watch)))
    sure = next((place for place, gap in enumerate(gaps) if gap < CLOSE), len(gaps))
    return "".join(token.text for token in tokens[:sure]), sure == len(gaps)


def ready(page, site: str) -> list[str]:
    """Open the page and wait until the model is there; return what will go wrong later."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(site)
    page.locator("body[data-ready]").wait_for(timeout=120_000)
    return wrong


def answer(page, name: str | None, question: str) -> str:
    """Show a picture, ask, and return what the page says."""
    turns = page.locator(".turn.model").count()
    if name:
        page.set_input_files("#file", str(EXAMPLES / name))
        page.locator("#caption", has_text="visual tokens").wait_for()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    page.locator("#ask:enabled").wait_for(timeout=120_000)
    page.locator(".turn.model").nth(turns).wait_for()
    return page.locator(".turn.model .said").nth(turns).text_content()


def test_answers_without_a_network_are_those_of_the_engine(browser, site, nano):
    context = browser.new_context(**PHONE, color_scheme="light")
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    wrong = ready(page, site)
    assert "works without a network" in page.locator("#kept").inner_text()
    keep(page, "offline-phone-light-empty")
    context.set_offline(True)
    page.reload()
    page.locator("body[data-ready]").wait_for(timeout=120_000)
    num_whole = 0
    for place, (name, question) in enumerate(ASKED):
        shown = name if place == 0 or name != ASKED[place - 1][0] else None
        ours, is_whole = engine_answer(nano, name, question)
        theirs = answer(page, shown, question)
        assert theirs == ours if is_whole else theirs.startswith(ours), (name, question)
        num_whole += is_whole
        keep(page, f"offline-phone-light-{place}")
    assert num_whole >= 2, "nano is sure of too few of these answers; ask others"
    # 700x1100 px in slices of 224 px give 2x4 cells and an overview; the last picture asked about is another.
    plan = plan_slices(*open_picture(EXAMPLES / ASKED[-1][0]).image.size, side_px=nano.info.side_px)
    assert page.locator(".frame rect").count() == (plan.grid.num_cells if plan.grid else 0)
    assert page.locator("#visual").inner_text() == str(nano.info.num_queries * plan.num_slices)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Nothing was asked of another machine, and without a network nothing failed.
    assert {url.split("/offline/")[0] for url in asked if not url.startswith("blob:")} == {
        site.removesuffix("/offline/")
    }
    assert wrong == []
    context.close()


@pytest.mark.soak
def test_dark_stop_and_what_is_no_picture(browser, site, tmp_path: Path):
    context = browser.new_context(**PHONE, color_scheme="dark")
    page = context.new_page()
    wrong = ready(page, site)
    assert page.evaluate("crossOriginIsolated"), "threads need a page that stands alone"
    # By keyboard alone: both ways to a picture, then the question.
    focused = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id"))
    assert focused == ["shoot", "choose", "question"]
    page.set_input_files("#file", {"name": "junk.png", "mimeType": "image/png", "buffer": b"junk"})
    page.get_by_role("alert").get_by_text("junk.png is no picture that this browser can read").wait_for()
    page.set_input_files("#file", str(EXAMPLES / "page.png"))
    page.get_by_label("Your question").fill("What does it say?")
    page.get_by_role("button", name="Ask").click()
    keep(page, "offline-phone-dark-looking")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert answer(page, "shapes.png", "Is there a red square?")
    keep(page, "offline-phone-dark-answered")
    assert wrong == []
    context.close()


def test_files_and_their_headers(site):
    import urllib.error
    import urllib.request

    with urllib.request.urlopen(site, timeout=60) as found:
        assert found.headers["content-type"].startswith("text/html")
        assert found.headers["cross-origin-embedder-policy"] == "require-corp"
        assert "connect-src 'self'" in found.headers["content-security-policy"]
    with urllib.request.urlopen(f"{site}runtime/ort-wasm-simd-threaded.wasm", timeout=60) as found:
        assert found.headers["content-type"] == "application/wasm"
    for name in ("nothing.js", "../app.py", "%2e%2e/%2e%2e/manifest.json", "runtime"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{site}{name}", timeout=60)


def test_a_model_that_no_browser_runs_is_said(tmp_path: Path):
    from handlens.errors import HandlensError

    with pytest.raises(HandlensError, match="is not a folder"):
        OfflineFolder(tmp_path / "none").files()
