"""The page on scaling: its formula is the one that was fitted, its tables agree with it."""

import re
from datetime import timedelta
from inspect import signature

import pytest

from signal_dispatch import hand, pruning
from signal_dispatch.conf import settings as package_settings
from signal_dispatch.entries import Endpoint
from signal_dispatch.management.commands.dispatch_worker import Command
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.publishing import Publisher
from tests.benchmarks import bill, capacity, carried, curve_tables
from tests.benchmarks.capacity import Costs, Formula, Point
from tests.benchmarks.curve_tables import Curves, Writings
from tests.benchmarks.page_parts import filled, names_in, part
from tests.howto.pages import DOCS, Page
from tests.once import ONCE

pytestmark = ONCE

FILE = DOCS / "explanation/scaling.md"
TEXT = FILE.read_text()
WORDS = " ".join(TEXT.split())
PAGE = Page("explanation/scaling")
FORMULA = PAGE.run("def rate_of")
RETENTION = PAGE.run("SIGNAL_DISPATCH_RETENTION")
COSTS = {"around": 0.002, "interpreter": 0.0015, "cpu": 0.002, "cores": 2}


def rows(name):
    """Return the cells of a measured table, without its headings."""
    lines = [line for line in part(TEXT, name).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


def test_the_formula_of_the_page_is_the_one_that_is_fitted():
    for latency in (0.0, 0.01, 0.2):
        for senders, processes in ((1, 1), (16, 1), (8, 4), (64, 20)):
            asked = (latency, senders, processes)
            assert FORMULA["calls_per_second"](*asked, **COSTS) == pytest.approx(
                capacity.calls_per_second(*asked, **COSTS)
            )


def test_away_from_the_bends_the_smallest_of_three_is_the_rate():
    def rate(latency, senders, processes=1, **more):
        return capacity.calls_per_second(latency, senders, processes, **COSTS | more)

    assert rate(0.2, 1) == pytest.approx(1 / 0.2035, rel=0.01)
    assert rate(0.2, 16) == pytest.approx(16 / 0.2035, rel=0.03)
    assert rate(0.01, 64, cores=64) == pytest.approx(1 / 0.0015, rel=0.01)
    assert rate(0.01, 64, 8) == pytest.approx(2 / 0.002, rel=0.01)


def test_the_fit_finds_the_costs_that_rates_were_made_of():
    costs = Costs(0.0031, 0.0017, 0.002, 4)
    made = {point: costs.rate(point) for point in (Point(1, 0.05), Point(16, 0.01))}

    found = capacity.fitted(made, cpu=0.002, cores=4)

    assert found.around == pytest.approx(0.0031, rel=0.05)
    assert found.interpreter == pytest.approx(0.0017, rel=0.05)
    assert max(map(abs, capacity.errors(made, Formula(found, found)).values())) < 1


def formula_of_the_page():
    cores = int(re.search(r"share (\d+) processors", WORDS)[1])
    costs = [
        Costs(*(float(cell.removesuffix(" ms")) / 1000 for cell in cells), cores)
        for _name, *cells in rows("constants")
    ]
    return Formula(*costs)


@pytest.mark.parametrize("by", ["senders", "processes"])
def test_rates_of_the_tables_are_those_of_the_constants(by):
    headings = part(TEXT, by).splitlines()[0].strip("|").split("|")[1:]
    latencies = [float(heading.strip().removesuffix(" ms")) / 1000 for heading in headings]
    formula = formula_of_the_page()

    for number, *cells in rows(by):
        for latency, cell in zip(latencies, cells, strict=True):
            many = {"senders": 16, "processes": 1} | {by: int(number)}
            told = float(cell.split("/")[1].strip(" \\*").replace(",", ""))
            assert told == pytest.approx(formula.rate(Point(latency=latency, **many)), rel=0.02)


def test_what_is_written_grows_with_the_hands_that_a_delivery_goes_through():
    dead = {name: float(cells[3]) for name, *cells in rows("written")}

    # Without the INSERT; the row of the endpoint's minute is written anew for each call by Celery.
    assert dead["threads"] == pytest.approx(1, abs=0.15)
    assert dead["worker"] == pytest.approx(2, abs=0.15)
    assert dead["Celery, Django Tasks"] == pytest.approx(4, abs=0.15)


def some_curves():
    many = [(1, 1), (16, 1), (16, 2)]
    points = [Point(senders, at, number) for at in (0.0, 0.05) for senders, number in many]
    formula = Formula(Costs(**COSTS), Costs(**COSTS))
    rates = {point: formula.rate(point) * 1.1 for point in points}
    machine = {"processors": 2, "machine": "m", "python": "3.11", "postgresql": 15}
    cpu_ms = {"workers": 1.0, "postgresql": 0.2, "sink": 0.1}
    return Curves(machine, rates, formula, cpu_ms, points[:1])


def some_writings():
    names = ["statements", "transactions", "inserted", "dead", "entries", "wal", "postgresql_ms"]
    sizes = dict.fromkeys(
        ["delivery_heap", "delivery_indexes", "attempt_heap", "attempt_indexes"], 50_000
    )
    run = {"record": dict.fromkeys(names, 1.0), "send": dict.fromkeys(names, 0.5)}
    run |= {"sizes": sizes, "packed": sizes}
    kinds = ["worker", "large", "threads", "drain", "among"]
    return Writings(100, 2000, dict.fromkeys(kinds, run))


def test_each_part_of_the_page_is_written_by_the_program_and_filled():
    texts = curve_tables.parts(some_curves(), some_writings())
    texts["bill"] = bill.bill(some_curves(), some_writings())

    assert sorted(names_in(TEXT)) == sorted(texts)
    assert all(part(TEXT, name) for name in texts)
    again = filled(TEXT, texts)
    assert {name: part(again, name) for name in texts} == texts
    assert filled(again, {name: part(TEXT, name) for name in texts}) == TEXT


def test_the_bill_multiplies_what_one_call_takes():
    told = {
        what: cells
        for what, *cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in bill.bill(some_curves(), some_writings()).splitlines()[2:]
        )
    }

    assert told["statements"] == ["1.5", "150/s", "1,500/s", "15,000/s"]
    assert told["rows and indexes, packed"][0] == "2,000 bytes"
    assert told["rows and indexes, packed"][3] == "1.7 TB a day"  # 10,000 * 86,400 * 2,000
    assert told["workers"][3] == "10 processors"
    assert told["… with 16 senders, for 200 ms"][3] == "127"  # 10,000 * 0.202 / 16


def test_numbers_of_the_page_are_those_of_the_code():
    worker = Command().create_parser("manage.py", "dispatch_worker")
    concurrency = worker.get_default("concurrency")

    assert f"`--concurrency` ({concurrency};" in WORDS
    assert concurrency == bill.SENDERS
    assert f"`MAX_CONCURRENCY` ({Endpoint('crm').max_concurrency})" in WORDS
    assert f"up to {hand.FLUSH_COUNT} answers" in WORDS
    assert f"takes {4 * concurrency} deliveries at a time" in WORDS
    assert "deletes up to 500 deliveries" in WORDS
    assert pruning.STEP == 500
    assert signature(Publisher).parameters["batch_size"].default == carried.MESSAGE
    assert len(Delivery._meta.indexes) + 1 == 7
    assert "all seven indexes" in WORDS
    assert sum(f.db_index or f.primary_key for f in Attempt._meta.fields) == 2
    assert f"ALTER TABLE {Delivery._meta.db_table} SET" in WORDS


def test_the_retention_of_the_page_is_one(settings):
    assert package_settings.retention["delivered"] == timedelta(days=7)

    settings.SIGNAL_DISPATCH_RETENTION = RETENTION["SIGNAL_DISPATCH_RETENTION"]

    assert package_settings.retention["delivered"] == timedelta(hours=6)
