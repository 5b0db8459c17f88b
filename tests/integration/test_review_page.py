# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The review page in a real browser, opened from disk as the command has written it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.prediction.review import read_review
from anomalib_mediclip.prediction.review_page import write_page
from tests.conftest import REPOSITORY
from tests.helpers.volumes import make_nifti

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HACKED = "document.title='hacked'"
HOSTILE = [
    f"<img src=x onerror={HACKED}>.png",
    f"a</script><script>{HACKED}</script>.png",  # its slashes make folders
    *("=cmd|' C calc'!A0.png", "+1.png", "-1.png", "@SUM(A1).png", "'quoted'.png", 'a,"b".png', "{{7*7}}.png"),
    *("&amp;.png", "line\nbreak.png", "return\r.png", "\u202ereversed.png", "caf\udce9.png", "100%2F.png"),
]


def command(folder: Path, *arguments: str) -> str:
    """Run the command as a user does, with a model whose map is the brightness, and return what it printed."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("anomalib")), *arguments, "--trainer.accelerator", "cpu"),
            *("--model", "tests.helpers.brightness.Brightness", "--model.visualizer", "true"),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    return done.stdout + done.stderr


def write_image(path: Path, brightness: int) -> None:
    """Write a dark image with a square in it, and the mask of the square if the folder is that of anomalous images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((90, 120), 20, np.uint8)
    pixels[30:60, 40:80] = brightness
    Image.fromarray(pixels).save(path)
    if path.parent.name == "abnormal":
        mask = path.parents[2] / "masks" / "abnormal" / path.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(pixels > 20, np.uint8(255), np.uint8(0))).save(mask)


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a test of 30 images, whose scores overlap."""
    folder = tmp_path_factory.mktemp("tested")
    for index in range(15):
        write_image(folder / "set" / "test" / "normal" / f"{index}.png", 40 + 9 * index)
        write_image(folder / "set" / "test" / "abnormal" / f"{index}.png", 100 + 10 * index)
    for index in range(4):
        write_image(folder / "set" / "train" / "normal" / f"{index}.png", 60)
    printed = command(folder, "test", "--data", "MedicalFolder", "--data.root", "set", "--data.k_shot", "4")
    run = folder / "results" / "Brightness" / "MedicalFolder" / "test" / "v0"
    assert f"Open {run / 'index.html'} in a browser" in printed
    return run


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a prediction of images of hostile names, a damaged file and a volume."""
    folder = tmp_path_factory.mktemp("predicted")
    for index, name in enumerate(HOSTILE):
        write_image(folder / "=cmd" / name, 60 + 10 * index)
    (folder / "=cmd" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n<b>")
    make_nifti(folder / "=cmd" / "scan.nii.gz", np.arange(8 * 9 * 3, dtype=np.int16).reshape(8, 9, 3))
    assert "1 of 19 images could not be read" in command(folder, "predict", "--data", "=cmd")
    return folder / "results" / "Brightness" / "v0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[Path], Page]]:
    """Return a function that opens the page of a run as a new user; the page must ask for files only, and not fail."""
    contexts, problems, requests = [], [], []

    def open_page(run: Path, **options) -> Page:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto((run / "index.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file://", "blob:"))] == []


def table_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "predictions.csv", keep_default_na=False)


def names(page: Page) -> list[str]:
    """Return the names of the cards in the page, in their order."""
    cards = page.locator(".card").all()
    placed = sorted((int(card.get_attribute("data-place")), card.locator(".name").text_content()) for card in cards)
    return [name for _, name in placed]


def export(page: Page, path: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name="Export review.csv").click()
    assert download.value.suggested_filename == "review.csv"
    download.value.save_as(path)
    return path


def set_threshold(page: Page, threshold: float) -> None:
    page.get_by_role("spinbutton", name="Threshold").fill(repr(threshold))


def test_order_follows_score_name_and_distance(visit, tested: Path) -> None:
    page, table = visit(tested), table_of(tested)
    table["name"] = [f"{Path(file).parent.name}/{Path(file).name}" for file in table["file"]]
    assert names(page) == table.sort_values("score", ascending=False, kind="stable")["name"].to_list()
    page.locator("#order").select_option("by name")
    assert names(page) == table["name"].to_list()
    page.locator("#order").select_option("nearest to the threshold")
    set_threshold(page, 0.43)
    distance = (table["score"] - 0.43).abs()
    assert names(page) == table.loc[distance.sort_values(kind="stable").index, "name"].to_list()


def test_figures_at_every_threshold_are_those_of_numpy(visit, tested: Path) -> None:
    page, table = visit(tested), table_of(tested)
    scores, truth = table["score"].to_numpy(), np.array(["abnormal" in file for file in table["file"]])
    assert page.locator("#auroc").text_content() == f"{roc_auc_score(truth, scores):.3f}"
    for threshold in (0.5, 0.0, 1.0, scores[7], np.nextafter(scores[7], 0), 0.3333333333333333):
        set_threshold(page, float(threshold))
        above = scores > threshold
        assert page.locator("#counts").text_content() == f"{above.sum()} anomalous, {(~above).sum()} normal"
        shown = [
            int(page.locator(f"#{kind}").text_content())
            for kind in ("true-positives", "false-negatives", "false-positives", "true-negatives")
        ]
        assert shown == [(above & truth).sum(), (~above & truth).sum(), (above & ~truth).sum(), (~above & ~truth).sum()]
        assert page.locator("#sensitivity").text_content() == f"{above[truth].mean():.3f}"
        assert page.locator("#specificity").text_content() == f"{(~above)[~truth].mean():.3f}"
    page.get_by_role("slider", name="Threshold").fill("0.6")
    assert page.locator("#counts").text_content() == f"{(scores > 0.6).sum()} anomalous, {(scores <= 0.6).sum()} normal"
    page.locator("#reference").select_option("predicted wrong")
    assert len(names(page)) == ((scores > 0.6) != truth).sum()


def test_marks_survive_a_reload_and_come_back_from_the_exported_review(visit, tested: Path, tmp_path: Path) -> None:
    page, table = visit(tested), table_of(tested).sort_values("score", ascending=False, kind="stable")
    first, second, third = table["file"][:3]
    page.get_by_role("listbox").focus()
    for key in ("a", "ArrowRight", "n", "n", "u", "ArrowRight", "Enter"):  # the second mark of a key removes the first
        page.keyboard.press(key)
    page.get_by_label("Comment").fill("=1+1, 'ringed'")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.get_by_label("Comment").fill("'quoted'")
    page.keyboard.press("Escape")
    set_threshold(page, 0.1 + 0.2)
    page.reload()
    assert page.locator("#threshold").input_value() == "0.30000000000000004"
    exported = export(page, tmp_path / "review.csv")
    review = read_review(exported)
    assert review.marks == {first: "anomalous", second: "unsure"}
    assert {image.file: image.comment for image in review.images if image.comment} == {
        second: "'quoted'",
        third: "=1+1, 'ringed'",
    }
    assert (review.threshold, len(review.images)) == (0.1 + 0.2, 30)
    assert review.run == hashlib.sha256((tested / "predictions.csv").read_bytes()).hexdigest()
    stored = pd.read_csv(exported, dtype=str, keep_default_na=False)
    original = pd.read_csv(tested / "predictions.csv", dtype=str, keep_default_na=False)
    assert sorted(stored["comment"])[-2:] == ["''quoted'", "'=1+1, 'ringed'"]  # words to a spreadsheet
    assert stored[["file", "score", "label"]].equals(original[["file", "score", "label"]])
    other = visit(tested)  # another browser
    other.get_by_label("Restore from review.csv").set_input_files(exported)
    other.get_by_text("Restored 3 marks and comments").wait_for()
    assert export(other, tmp_path / "again.csv").read_bytes() == exported.read_bytes()


def test_reviews_that_do_not_fit_change_nothing(visit, tested: Path, tmp_path: Path) -> None:
    page = visit(tested)
    page.get_by_role("listbox").press("u")
    lines = export(page, tmp_path / "review.csv").read_text().splitlines()
    file, *rest = lines[1].split(",")
    status = page.locator("#status")
    for wrong, message in [
        ([line.replace(rest[-1], "0" * 64) for line in lines], "review of another run"),
        ([*lines, ",".join([file, "normal", *rest[1:]]), ",".join([file, "anomalous", *rest[1:]])], "is marked as"),
        ([lines[0], lines[1].replace(",,", ",benign,", 1)], "“benign” is unknown"),
        (["file;mark"], "There is no column file, mark"),
    ]:
        (tmp_path / "wrong.csv").write_text("\n".join(wrong) + "\n")
        page.get_by_label("Restore from review.csv").set_input_files(tmp_path / "wrong.csv")
        page.wait_for_function("text => document.getElementById('status').textContent.includes(text)", arg=message)
        assert "wrong.csv is not restored" in status.text_content()
    assert list(read_review(export(page, tmp_path / "after.csv")).marks.values()) == ["unsure"]
    page.once("dialog", lambda dialog: dialog.dismiss())
    (tmp_path / "empty.csv").write_text("\n".join([lines[0], *(line.replace(",unsure,", ",,") for line in lines[1:])]))
    page.get_by_label("Restore from review.csv").set_input_files(tmp_path / "empty.csv")
    assert list(read_review(export(page, tmp_path / "kept.csv")).marks.values()) == ["unsure"]


def test_everything_can_be_reached_by_keys(visit, tested: Path) -> None:
    page = visit(tested)

    def tab_to(selector: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"no way to {selector} by Tab")

    tab_to("#export")
    tab_to("#slider")
    before = page.locator("#counts").text_content()
    for _ in range(200):
        page.keyboard.press("ArrowRight")
    assert page.locator("#counts").text_content() != before
    tab_to("#order")
    page.keyboard.press("l")  # lowest score first
    tab_to("#grid")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    chosen = page.locator(".card[aria-selected=true]")
    assert page.get_by_role("listbox").get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    name = chosen.locator(".name").text_content()
    page.keyboard.press("Enter")
    view = page.get_by_role("dialog")
    assert view.get_by_role("heading").text_content().endswith(name)
    page.keyboard.press("ArrowRight")
    assert not view.get_by_role("heading").text_content().endswith(name)
    page.keyboard.press("a")
    assert view.get_by_role("button", name="Anomalous").get_attribute("aria-pressed") == "true"
    tab_to("#comment")
    page.keyboard.type("an")  # letters of a comment are no marks
    assert view.get_by_role("button", name="Anomalous").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert not view.is_visible()
    assert page.evaluate("document.activeElement.id") == "grid"
    assert "marked anomalous" in page.locator(".card[aria-selected=true]").get_attribute("aria-label")


def colours_at(page: Page, tmp_path: Path) -> np.ndarray:
    """Return the pixels of the large picture."""
    page.wait_for_function("[...document.querySelectorAll('#stage img[src]')].every(image => image.complete)")
    page.locator("#stage").screenshot(path=tmp_path / "stage.png")
    return np.asarray(Image.open(tmp_path / "stage.png").convert("RGB")).astype(int)


def test_layers_lie_over_each_other(visit, tested: Path, tmp_path: Path) -> None:
    page = visit(tested)
    page.get_by_role("listbox").press("Enter")  # the brightest square: bright map, both outlines
    both = colours_at(page, tmp_path)
    height, width = both.shape[:2]
    assert width / height == pytest.approx(4 / 3, abs=0.01)
    red, green, blue = np.moveaxis(both, 2, 0)
    is_green = (green > 200) & (red < 150) & (blue < 150)
    rows, columns = np.nonzero(is_green)
    assert (rows.min() / height, rows.max() / height) == pytest.approx((1 / 3, 2 / 3), abs=0.03)
    assert (columns.min() / width, columns.max() / width) == pytest.approx((1 / 3, 2 / 3), abs=0.03)
    centre, corner = both[height // 2, width // 2], both[5, 5]
    assert centre[0] > centre[2] + 40  # the high end of the palette is red
    assert corner[2] >= corner[0]  # and the low end is blue
    page.get_by_label("true outline").uncheck()
    page.get_by_label("predicted outline").uncheck()
    page.get_by_label("Opacity of the map").fill("0")
    plain = colours_at(page, tmp_path)
    assert np.ptp(plain, axis=2).max() <= 2  # nothing but the grey image
    assert plain[height // 2, width // 2, 0] == pytest.approx(240, abs=6)


def test_hostile_names_are_words_everywhere(visit, predicted: Path, tmp_path: Path) -> None:
    page, table = visit(predicted), table_of(predicted)
    page.locator("#order").select_option("by name")
    page.get_by_role("listbox").focus()
    for place in range(len(table)):
        page.keyboard.press("unau"[place % 4])
        page.keyboard.press("Enter")
        assert page.locator("#view-name").text_content() == table["file"][place]
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
    assert page.title() == "Review of Brightness"
    assert page.locator("script").count() == 3
    assert page.locator("[onerror], .name img, h2 *").count() == 0
    assert "scan.nii.gz/0002" in names(page)
    review = read_review(export(page, tmp_path / "review.csv"))
    assert [image.file for image in review.images] == table["file"].to_list()
    assert list(review.marks) == table["file"].to_list()
    for path in (predicted / "predictions.csv", predicted / "volumes" / "slices.csv", tmp_path / "review.csv"):
        cells = pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().ravel()
        assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))] == []
    assert Path(table["file"][0]).parts[0] == "=cmd"  # the path still leads to the file
    page.locator("#predicted").select_option("unreadable")
    page.get_by_role("listbox").press("Enter")
    assert "damaged.png" in page.locator("#reason").text_content()


def test_ten_thousand_images_scroll(visit, tested: Path, tmp_path: Path) -> None:
    shutil.copytree(tested, tmp_path, dirs_exist_ok=True)
    picture = next((tmp_path / "review" / "0").glob("*_thumbnail.jpg")).stem.removesuffix("_thumbnail")
    scores = np.random.default_rng(0).random(10_000)
    with (tmp_path / "rows.jsonl").open("w") as file:
        for index, score in enumerate(scores):
            row = [f"study/{index:05d}.png", f"{score:.9g}", "normal", "", f"review/0/{picture}", 120, 90, ["map"], ""]
            file.write(json.dumps(row) + "\n")
    write_page(tmp_path / "index.html", "Many", 0.5, tmp_path / "predictions.csv", [tmp_path / "rows.jsonl"])
    page = visit(tmp_path)
    rounded = np.array([float(f"{score:.9g}") for score in scores])
    assert (
        page.locator("#counts").text_content() == f"{(rounded > 0.5).sum()} anomalous, {(rounded <= 0.5).sum()} normal"
    )
    page.get_by_role("listbox").press("End")
    lowest = page.locator(".card[aria-selected=true]")
    assert lowest.locator(".name").text_content() == f"{rounded.argmin():05d}.png"
    assert lowest.get_attribute("aria-posinset") == "10000"
    page.wait_for_function("document.querySelector('.card.current img').naturalWidth > 0")
    assert lowest.evaluate("card => card.getBoundingClientRect().bottom <= window.innerHeight")
    assert page.locator(".card").count() < 150  # only what is near the window is in the page


def test_words_stand_out_in_both_colour_schemes(visit, tested: Path) -> None:
    measure = """() => [...document.querySelectorAll('h1, #summary, label, button, .hint, .card span, td, th')]
        .map(node => [node, getComputedStyle(node).color])
        .map(([node, ink]) => { for (let at = node; at; at = at.parentElement) {
            const ground = getComputedStyle(at).backgroundColor;
            if (!ground.startsWith('rgba')) return [ink, ground]; } return [ink, 'missing']; })"""
    for scheme in ("light", "dark"):
        for ink, ground in visit(tested, color_scheme=scheme).evaluate(measure):
            light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, ink, ground)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG of a colour such as ``rgb(1, 2, 3)``."""
    channels = np.array([int(value) for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_print_holds_the_marks_and_no_controls(visit, tested: Path) -> None:
    page = visit(tested)
    page.get_by_role("listbox").press("a")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".card").count() == 30
    assert page.locator(".card .marked").text_content() == "anomalous"
    assert not page.get_by_role("button", name="Export review.csv").is_visible()
