"""The reference tells of everything that is there, as it is, and of nothing else."""

import ast
import inspect
import re
from dataclasses import fields
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

import signal_dispatch
from signal_dispatch import conf, exceptions, mocking, outcomes, pytest_plugin, signals, testing
from signal_dispatch.alarms import Alarm, AlarmKind
from signal_dispatch.backends.celery import CeleryBackend
from signal_dispatch.backends.console import ConsoleBackend
from signal_dispatch.backends.tasks import TasksBackend
from signal_dispatch.backends.threaded import ThreadedBackend
from signal_dispatch.backends.threads import ThreadsBackend
from signal_dispatch.checks.problems import Problem
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.entries import _READERS, Endpoint, parse
from signal_dispatch.events import Change, Event
from signal_dispatch.models import Attempt, Delivery, RemoteObject, State
from signal_dispatch.outcomes import Outcome, OutcomeKind, Response
from signal_dispatch.publishing import Publisher
from signal_dispatch.retries import DEFAULT_DELAYS, RetryPolicy
from signal_dispatch.worker import Worker
from tests.once import ONCE

pytestmark = ONCE

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference"
SOURCES = {path: path.read_text() for path in (ROOT / "signal_dispatch").rglob("*.py")}
COMMANDS = sorted(
    path.stem for path in (ROOT / "signal_dispatch/management/commands").glob("dispatch_*.py")
)
NOT_SET = "–"  # noqa: RUF001 - the pages write a dash


def rows(page, *headings):
    """Return the cells of the tables below the headings (all, without any), a list a row."""
    text = (PAGES / f"{page}.md").read_text()
    found, heading, head = [], "", True
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`")
        if not line.startswith("|"):
            head = True
            continue
        if head:
            head = False
            continue
        if not line.startswith("|---") and (not headings or heading in headings):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert found
    return found


def names_in(cell):
    """Return what stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


def table(page, *headings, column=1):
    """Return a column of tables by the names in their first one, each of which comes once."""
    pairs = [(n, row[column]) for row in rows(page, *headings) for n in names_in(row[0])]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def value(cell):
    """Return the value that a cell writes as Python."""
    (written,) = names_in(cell)
    known = {"Event": Event, "RetryPolicy": RetryPolicy, "timedelta": timedelta}
    return eval(written, known)  # noqa: S307 - our own page


def signature(text):
    """Return the name of a call, and the parameters that it is written with."""
    call = ast.parse(text, mode="eval").body
    stars = [a.value.id for a in call.args if isinstance(a, ast.Starred)]
    plain = [a.id for a in call.args if isinstance(a, ast.Name)]
    assert len(stars) + len(plain) == len(call.args)
    given = {k.arg or k.value.id: k.value for k in call.keywords}
    return ast.unparse(call.func), [*plain, *stars, *given], given


def assert_signature(text, function):
    """Compare a call on a page with the function, its defaults included."""
    _name, written, given = signature(text)
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    assert written == list(parameters), text
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if variadic or parameter.default is parameter.empty:
            assert name not in given or variadic, text
            continue
        shown = ast.literal_eval(given[name])
        assert shown in (..., parameter.default), text


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


def hook(name):
    return inspect.isfunction(vars(ModelDispatch).get(name))


# Declarations.


def test_attributes_and_their_defaults():
    told = table("declarations", "Attributes")
    for name, cell in told.items():
        assert value(cell) == getattr(ModelDispatch, name), name
    set_by_us = {"tracked", "events", "related"}
    declared = set(vars(ModelDispatch)["__annotations__"]) - set_by_us
    assert set(told) == declared


def test_hooks_are_told_with_what_they_are_called_with():
    headings = [
        "Asked when the change is recorded",
        "Asked when it is sent",
        "Asked when an answer came",
        "Asked by `manage.py check",
    ]
    told = table("declarations", *headings)
    for text in told:
        assert_signature(text, getattr(ModelDispatch, signature(text)[0]))
    beside = table("declarations", "What an instance has beside them")
    others = {name.partition("(")[0] for name in beside}
    hooks = {signature(text)[0] for text in told}
    everything = public(ModelDispatch) - set(table("declarations", "Attributes"))
    assert hooks | others == everything | {"model"}
    assert not hooks & others
    assert all(hook(name) for name in hooks)


# Settings.


def test_settings_and_their_defaults(monkeypatch):
    monkeypatch.setattr(conf, "django_settings", object())
    told = {
        name.removeprefix(conf.PREFIX).lower(): value(cell)
        for name, cell in table("settings", "Settings").items()
    }
    bare = conf.Settings()
    known = {n for n, v in vars(conf.Settings).items() if hasattr(v, "__set_name__")}
    assert told == {name: getattr(bare, name) for name in known}


def test_keys_of_an_endpoint_and_their_defaults():
    told = table("settings", "An endpoint")
    assert list(told) == list(_READERS)
    bare = Endpoint("crm")
    for key, cell in told.items():
        if cell == NOT_SET:
            assert not getattr(bare, key.lower()), key
        else:
            endpoint, problems = parse("crm", {key: value(cell)})
            assert (endpoint, problems) == (bare, []), key


@pytest.mark.parametrize(
    ("backend", "makers"),
    [
        (ThreadsBackend, [Worker, ThreadedBackend]),
        (CeleryBackend, [Publisher, ThreadedBackend]),
        (TasksBackend, [Publisher, ThreadedBackend]),
    ],
)
def test_options_of_a_backend_and_their_defaults(backend, makers):
    told = table("settings", backend.__name__)
    assert set(told) == set(backend.options)
    parameters = {}
    for maker in makers:
        parameters |= inspect.signature(maker).parameters
    shown = {name: None if cell == NOT_SET else value(cell) for name, cell in told.items()}
    known = {name: parameters[name].default for name in told if name in parameters}
    if backend is TasksBackend:
        made = TasksBackend("default")
        known |= {"tasks": made.tasks, "queue": made.queue}
    assert shown == {name: known.get(name) for name in told}


def test_backends_are_told():
    text = (PAGES / "settings.md").read_text()
    named = set(re.findall(r"`signal_dispatch\.backends\.(\w+\.\w+)`", text))
    bases_and_tests = {"threaded.ThreadedBackend", "published.PublishedBackend"}
    bases_and_tests |= {"base.BaseBackend", "immediate.InlineBackend"}
    assert (
        named
        == {
            f"{path.stem}.{name}"
            for path, source in SOURCES.items()
            for name in re.findall(r"^class (\w+Backend)\b", source, re.MULTILINE)
            if path.parent.name == "backends"
        }
        - bases_and_tests
    )
    options = inspect.signature(ConsoleBackend).parameters
    assert list(table("settings", "ConsoleBackend")) == [
        n for n, p in options.items() if p.kind is p.KEYWORD_ONLY
    ]


# Checks.


def test_ids_of_the_checks():
    told = table("checks")
    assert set(told) == {problem.value for problem in Problem}
    assert all(len(row) == 3 and all(row) for row in rows("checks"))
    written = {
        number
        for source in SOURCES.values()
        for number in re.findall(r'id="signal_dispatch\.([EWI]\d+)"', source)
    }
    assert written <= set(told)


# Commands.


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command_and_their_defaults(command):
    parser = load_command_class("signal_dispatch", command).create_parser("manage.py", command)
    djangos = BaseCommand().create_parser("manage.py", command)
    common = {option for action in djangos._actions for option in action.option_strings}
    options = {}
    for action in parser._actions:
        if not set(action.option_strings) & common:
            name = action.option_strings[0] if action.option_strings else action.metavar
            takes = action.option_strings and action.nargs != 0
            shown = action.metavar or action.dest.upper()
            options[f"{name} {shown}" if takes else name] = action.default or None
    # 0 is a default, and not the lack of one.
    if command == "dispatch_status":
        options["--max-failed N"] = 0
    told = table("commands", command)
    assert {n: None if c == NOT_SET else value(c) for n, c in told.items()} == options


def test_commands_are_told():
    text = (PAGES / "commands.md").read_text()
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == COMMANDS


# Signals and log lines.


def sent():
    """Return the senders and arguments of each signal, as they are sent anywhere."""
    found = {}
    for source in SOURCES.values():
        for node in ast.walk(ast.parse(source if "send_robust" in source else "")):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if node.func.attr == "send_robust" and isinstance(owner, ast.Attribute):
                given = [k.arg for k in node.keywords if k.arg != "sender"]
                (sender,) = [k.value.id for k in node.keywords if k.arg == "sender"]
                assert found.setdefault(owner.attr, (sender, given)) == (sender, given)
    return found


def test_signals_with_their_senders_and_arguments():
    told = {
        names_in(row[0])[0]: (names_in(row[1])[0], names_in(row[2]))
        for row in rows("signals", "Signals")
    }
    assert told == sent()
    assert set(told) == {n for n, s in vars(signals).items() if isinstance(s, signals.Signal)}


def test_the_alarm():
    told = list(table("signals", "The alarm"))
    assert set(told) == {field.name for field in fields(Alarm)} | set(AlarmKind.values)


def logged():
    """Return the levels by the action of each log line; those of the function where it stands."""
    found = {}
    for source in SOURCES.values():
        for node in ast.walk(ast.parse(source if "logger" in source else "")):
            if not isinstance(node, ast.FunctionDef):
                continue
            text = "\n".join(source.splitlines()[node.lineno : node.end_lineno])
            actions = re.findall(r'"action": "(\w+)"|log_extra\("(\w+)"\)', text)
            levels = set(re.findall(r"\blogger\.(\w+)", text))
            for action in filter(None, (a or b for a, b in actions)):
                found.setdefault(action, set()).update(levels)
    return found


def test_each_log_line_carries_an_action():
    for path, source in SOURCES.items():
        for call in ast.walk(ast.parse(source if "logger" in source else "")):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("logger."):
                assert "extra" in {k.arg for k in call.keywords}, f"{path}:{call.lineno}"


def test_log_lines_and_their_levels():
    told, found = table("signals", "Log lines"), logged()
    assert set(told) == set(found)
    for action, level in told.items():
        assert {level, {"error": "exception"}.get(level, level)} & found[action], action


# States.


def test_states_outcomes_and_error_classes():
    assert list(table("states", "States")) == State.values
    assert list(table("states", "Outcomes")) == [kind.value for kind in OutcomeKind]
    assert set(table("states", "Error classes")) == set(outcomes.ERROR_CLASSES)


# Errors.


def test_exceptions_with_what_they_also_are():
    told = table("errors", "Errors")
    raised = {
        name: error
        for name, error in vars(exceptions).items()
        if isinstance(error, type) and error.__module__ == exceptions.__name__
    }
    assert list(told) == list(raised)
    for name, cell in told.items():
        bases = [base.__name__ for base in raised[name].__bases__]
        assert names_in(cell) == (bases[1:] if len(bases) > 1 else bases), name


# Testing.


def test_fixtures_and_marker():
    told = set(table("testing", "Fixtures and marker of pytest"))
    source = inspect.getsource(pytest_plugin)
    fixtures = re.findall(r"^@pytest\.fixture\ndef (\w+)", source, re.MULTILINE)
    assert told == {*fixtures, pytest_plugin._MARKER}


def test_what_the_testing_module_holds():
    told = list(table("testing", "signal_dispatch.testing"))
    assert {text.partition("(")[0] for text in told} == set(testing.__all__)
    for text in told:
        if "(" in text:
            assert_signature(text, getattr(testing, signature(text)[0]))


@pytest.mark.parametrize("name", ["Deliveries", "EndpointMock", "ReceivedCall"])
def test_what_tests_are_given(name):
    kind = getattr(testing, name, None) or getattr(mocking, name)
    told = list(table("testing", name))
    for text in told:
        if "(" in text:
            assert_signature(text, getattr(kind, signature(text)[0]))
    # What the package itself asks of a mock.
    internal = {"take_over", "answer"}
    shown = {text.partition("(")[0] for text in told}
    assert shown == public(kind) - internal | ({"calls"} if name == "EndpointMock" else set())


# Objects and functions.


def test_the_root():
    assert set(table("objects", "What `signal_dispatch` itself holds")) == set(
        signal_dispatch.__all__
    )


def test_events():
    told = [(names_in(row[0])[0], names_in(row[1])[0]) for row in rows("objects", "Event")]
    assert told == [(f"Event.{event.name}", event.value) for event in Event]


@pytest.mark.parametrize("kind", [Change, Response, Outcome, RetryPolicy])
def test_objects_that_hooks_are_given_or_give(kind):
    told = list(table("objects", kind.__name__))
    text = (PAGES / "objects.md").read_text()
    names = set()
    for entry in told:
        if "(" not in entry:
            names.add(entry)
            continue
        name = signature(entry)[0].removeprefix(f"{kind.__name__}.")
        if name == kind.__name__:
            names |= set(signature(entry)[1])
            for parameter, default in signature(entry)[2].items():
                known = inspect.signature(kind).parameters[parameter].default
                assert ast.literal_eval(default) in (..., known)
            continue
        names.add(name)
        assert_signature(entry, getattr(kind, name))
    expected = public(kind)
    if kind is Outcome:
        attributes = {field.name for field in fields(kind)}
        assert f"attributes are {_listed(field.name for field in fields(kind))}." in text
        expected -= attributes
    assert names == expected


def _listed(names):
    *first, last = [f"`{name}`" for name in names]
    return f"{', '.join(first)} and {last}"


def test_default_delays():
    shown = ", ".join(f"{delay:g}" for delay in DEFAULT_DELAYS)
    assert f"default delays, in seconds: {shown}." in (PAGES / "objects.md").read_text()


def test_functions_are_there_as_they_are_told():
    for text in table("objects", "Functions"):
        module, _, name = signature(text)[0].rpartition(".")
        assert_signature(text, getattr(import_module(module), name))
    for path in table("objects", "Managers"):
        assert inspect.isclass(import_string(path))


@pytest.mark.parametrize("model", [Delivery, Attempt, RemoteObject])
def test_rows(model):
    columns = [field.name for field in model._meta.concrete_fields]
    properties = [n for n, v in vars(model).items() if isinstance(v, property)]
    told = list(table("objects", model.__name__))
    assert set(told) == {*columns, *properties} - {"pk"}
