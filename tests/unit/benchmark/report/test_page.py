# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The report as a whole."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from anomalib_mediclip.benchmark.report import write_report
from anomalib_mediclip.benchmark.report.__main__ import main
from tests.unit.benchmark.small_benchmark import BROKEN, MODELS, as_table, failure

FILES = [
    *("heat_maps/BUSI.png", "report.html", "report.md", "significance.csv"),
    *("tables/image_auroc.csv", "tables/pixel_auroc.csv"),
]


def text_of(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


@pytest.fixture(scope="module")
def page(report: Path) -> ElementTree.Element:
    """The page; that it parses as XML shows that every element is closed and everything is escaped."""
    return ElementTree.fromstring((report / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def markdown(report: Path) -> str:
    return (report / "report.md").read_text(encoding="utf-8")


def section(page: ElementTree.Element, title: str) -> ElementTree.Element:
    return next(e for tag in ("section", "figure") for e in page.iter(tag) if text_of(e).startswith(title))


def test_files(report: Path) -> None:
    assert sorted(str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()) == FILES


def test_page_loads_nothing(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http:" not in without_namespaces
    assert "https:" not in without_namespaces
    assert set(re.findall(r'(?:src|href)="(data:image/jpeg;base64,|#|.*?")', page)) == {"data:image/jpeg;base64,", "#"}
    assert not re.search(r"@import|<script|<link|url\((?!#)", page)
    assert len(page) < 300_000


def test_ids_are_unique(page: ElementTree.Element) -> None:
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_browser_finds_every_table_closed(report: Path) -> None:
    """As HTML, too, elements must nest."""

    class Nesting(HTMLParser):
        void = frozenset({"meta", "img"})
        open_tags: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open_tags.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            assert tag in self.void or "svg" in self.open_tags

    parser = Nesting()
    parser.feed((report / "report.html").read_text(encoding="utf-8"))
    assert parser.open_tags == []


def test_pixel_table(page: ElementTree.Element) -> None:
    """BrainMRI has no masks, so BUSI alone is there, and no mean over data sets."""
    rows = [[text_of(cell) for cell in row] for row in section(page, "Pixel-AUROC").iter("tr")]
    assert rows == [
        ["Data set", "k", "Patch|Core", "MediCLIP", "SimpleNet", "mean brightnesstrivial baseline"],
        [
            "BUSI12 normal, 18 anomalous",
            "4",
            "failed",
            "86.0 ± 1.0paper 88.0 ± 0.3 (\N{MINUS SIGN}2.0)",
            "61.0 ± 1.7",
            "70.0",
        ],
        ["16", "failed", "86.0 ± 1.0paper 85.5 (+0.5)", "61.0 ± 1.7", "70.0"],
    ]
    assert [text_of(bold) for bold in section(page, "Pixel-AUROC").iter("b")] == ["86.0 ± 1.0"] * 2


def test_data_set_spans_its_rows(page: ElementTree.Element) -> None:
    spans = [
        cell.get("rowspan") for cell in section(page, "Image-AUROC (%)").iter("th") if cell.get("scope") == "rowgroup"
    ]
    assert spans == ["2", "2"]


def test_pixel_table_in_markdown(markdown: str) -> None:
    assert (
        "| BUSI | 4 | failed | **86.0 ± 1.0** (paper 88.0 ± 0.3) | 61.0 ± 1.7 | *70.0* |\n"
        "| BUSI | 16 | failed | **86.0 ± 1.0** (paper 85.5) | 61.0 ± 1.7 | *70.0* |\n"
    ) in markdown


def test_markdown_tables_have_as_many_cells_in_every_row(markdown: str) -> None:
    tables = [block.splitlines() for block in re.split(r"\n\n+", markdown) if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_holes_are_marked_and_explained(page: ElementTree.Element, markdown: str) -> None:
    table = text_of(section(page, "Image-AUROC (%)"))
    assert re.search(r"\d+\.\d ± \d+\.\d†2 of 3 seeds", table)
    assert "† Mean over fewer seeds than planned" in table
    assert re.search(r"\d+\.\d ± \d+\.\d † 2 of 3 seeds \|", markdown)
    failed = [text_of(item) for item in section(page, "Failed jobs").iter("li")]
    assert len(failed) == 13
    assert "SimpleNet, BrainMRI, k = 16, seed 1: OutOfMemoryError: 2 GiB" in failed
    assert "Patch|Core, BUSI, k = 4, seed 0: ValueError: no <module> 'patch'" in failed
    assert markdown.count(r"ValueError: no \<module>") == 12


def test_tidy_tables_can_be_published_figures(report: Path, tmp_path: Path, benchmark: Path) -> None:
    tidy = pd.read_csv(report / "tables" / "pixel_auroc.csv")
    row = tidy.query("k_shot == 4 and model == 'MediCLIP'").iloc[0]
    assert row.drop("data").tolist() == [4, "MediCLIP", "pixel_auroc", 86.0, 1.0, 3, 0, 88.0, 0.3]
    write_report(benchmark, [report / "tables" / "pixel_auroc.csv"], output=tmp_path)
    assert "(paper 61.0 ± 1.7)" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_significance(page: ElementTree.Element, report: Path) -> None:
    table = pd.read_csv(report / "significance.csv")
    rows = [[text_of(cell) for cell in row][-5:] for row in section(page, "Significance").find(".//table").iter("tr")][
        1:
    ]
    assert len(rows) == len(table) == 4
    first = table.iloc[0]
    assert first["low"] > 0
    assert rows[0] == [
        "MediCLIP", "SimpleNet", f"{first['difference']:+.1f}*", f"{first['low']:+.1f} to {first['high']:+.1f}",
        f"{first['p_value']:.4f}",
    ]  # fmt: skip
    assert "not corrected for multiple comparisons" in text_of(section(page, "Significance"))


def test_costs_and_provenance(page: ElementTree.Element) -> None:
    rows = [[text_of(cell) for cell in row] for row in section(page, "Cost").iter("tr")]
    assert rows[1] == ["MediCLIP", "4", "200", "60.0", "9.2", "12.5", "1,024", "409,600", "cpu"]
    provenance = section(page, "Provenance")
    assert "38 jobs, 13 failed. Device: cpu." in text_of(provenance)
    support_sets = [[text_of(cell) for cell in row] for row in provenance.iter("tr")][1:]
    assert len(support_sets) == 12  # one for all models of a data set, k and seed
    assert support_sets[-1] == ["BrainMRI", "16", "2", "BrainMRI"]  # the hash is shown by its first 8 characters


def test_pictures_have_words(page: ElementTree.Element) -> None:
    pictures = [image.get("alt") for image in page.iter("img")]
    assert len(pictures) == 4 * 4
    assert pictures[2] == "BUSI, b<0>.png (anomalous): MediCLIP"
    drawings = [drawing.get("aria-label") for drawing in page.iter("{http://www.w3.org/2000/svg}svg")]
    assert drawings == [
        f"{kind} on {data}" for kind in ("Image-AUROC over k", "ROC curves") for data in ("BUSI", "BrainMRI")
    ]


def test_pictures_can_be_left_out(benchmark: Path, tmp_path: Path) -> None:
    page = write_report(benchmark, pictures=False, output=tmp_path).read_text(encoding="utf-8")
    assert "<img" not in page
    assert "left out of this report because they are not redistributable" in page


def test_no_examples_no_words_about_them(benchmark: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(benchmark, tmp_path / "copy")
    shutil.rmtree(folder / "examples")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Heat maps" not in page
    assert (folder / "report.md").is_file()  # written to the folder itself


def test_same_folder_same_bytes(benchmark: Path, published: Path, report: Path, tmp_path: Path) -> None:
    write_report(benchmark, [published], output=tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes()


def test_contradiction_is_said_at_the_top(benchmark: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(benchmark, tmp_path / "copy")
    table = pd.read_csv(folder / "results.csv")
    table.loc[table["model"] == "SimpleNet", "support_set_hash"] = "other"
    table.to_csv(folder / "results.csv", index=False)
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.index("did not learn from the same support set") < page.index("<h2>")
    assert "did not learn from the same support set" in (folder / "report.md").read_text(encoding="utf-8")


def test_benchmark_in_which_everything_failed(tmp_path: Path) -> None:
    as_table([failure("X", 4, 0, "A", "boom")]).to_csv(tmp_path / "results.csv", index=False)
    page = ElementTree.fromstring(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "A, X, k = 4, seed 0: boom" in text_of(section(page, "Failed jobs"))


def test_command_line(benchmark: Path, published: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = ["report", str(benchmark), "--published", str(published), "--output", str(tmp_path), "--no_pictures"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert capsys.readouterr().out == f"wrote {tmp_path / 'report.html'}\n"
    assert "(paper 88.0 ± 0.3)" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_command_line_says_what_is_missing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "results.csv does not exist" in capsys.readouterr().err


def test_note_of_the_configuration_is_at_the_top(benchmark: Path, tmp_path: Path) -> None:
    shutil.copytree(benchmark, tmp_path, dirs_exist_ok=True)
    write_report(tmp_path)
    assert "Note." not in (tmp_path / "report.html").read_text()
    (tmp_path / "note.txt").write_text("settings were chosen <elsewhere>")
    write_report(tmp_path)
    assert "settings were chosen &lt;elsewhere&gt;" in (tmp_path / "report.html").read_text().split("<h2>")[0]
    assert "**Note.** settings were chosen" in (tmp_path / "report.md").read_text().split("##")[0]


def test_both_kinds_of_figures_have_a_legend_of_all_models(page: ElementTree.Element) -> None:
    legends = [text_of(element) for element in page.iter() if element.get("aria-label") == "Legend"]
    assert len(legends) == 2
    for legend in legends:
        for name in (*MODELS, BROKEN, "mean brightness"):
            assert name in legend
