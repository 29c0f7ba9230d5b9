"""Check for dispatches that somebody wrote and nobody registered: they tell nobody of anything."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage

from signal_dispatch.checks.problems import Problem
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import SETTING
from signal_dispatch.registry import MODULE, registry

#: What that module is easily called by mistake.
_MISNAMED = "dispatch"


def check_unregistered() -> Iterator[CheckMessage]:
    """Warn of classes that are complete, and of modules that nobody imports."""
    registered = {type(dispatch) for dispatch in registry}
    for each in _leaves(ModelDispatch):
        if each not in registered and _is_complete(each) and _is_in_its_module(each):
            yield Problem.DISPATCH_UNREGISTERED.message(
                f"{each.__module__}.{each.__qualname__} is not registered, so it tells nobody of "
                "anything.",
                hint="Write @register(Model) over it, with its model in the place of Model. If "
                "others are to inherit from it, begin its name with '_'.",
            )
    yield from _check_modules()


def check_unused() -> Iterator[CheckMessage]:
    """Warn of endpoints that nothing is ever sent to."""
    if len(endpoints) and not len(registry):
        yield Problem.ENDPOINTS_UNUSED.message(
            f"{SETTING} has endpoints, and no dispatch is registered: nothing is sent.",
            hint=f"Write a ModelDispatch below @register(Model) into {MODULE}.py of an installed "
            "app, or import the module that has it in the app's ready().",
        )


def _check_modules() -> Iterator[CheckMessage]:
    for config in apps.get_app_configs():
        path = Path(config.path, f"{_MISNAMED}.py")
        name = f"{config.name}.{_MISNAMED}"
        if name in sys.modules or not path.is_file() or find_spec(f"{config.name}.{MODULE}"):
            continue
        if "signal_dispatch" in path.read_text(errors="replace"):
            yield Problem.DISPATCH_UNREGISTERED.message(
                f"{name} is imported by nobody, so its dispatches are not registered.",
                hint=f"Call the file {MODULE}.py: modules of that name are found.",
            )


def _leaves(base: type[Any]) -> Iterator[type[Any]]:
    for each in base.__subclasses__():
        if each.__subclasses__():
            yield from _leaves(each)
        else:
            yield each


def _is_complete(each: type[ModelDispatch[Any]]) -> bool:
    """Say whether it names an endpoint itself, and has a payload: what is inherited from has not.

    Who means it to be inherited from all the same begins its name with an underscore.
    """
    payload = each.fields is not None or each.serializer_class is not None
    own = vars(each).get("endpoint")
    return bool(own) and (payload or each.overrides("get_payload")) and each.__name__[0] != "_"


def _is_in_its_module(each: type[Any]) -> bool:
    """Say whether it is found by its name: what a function made, or a test left, is not."""
    found: Any = sys.modules.get(each.__module__)
    for name in each.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is each
