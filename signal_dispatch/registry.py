"""Which dispatches are declared for which models."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from django.db.models import Model

from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.exceptions import InvalidDispatch

DispatchClass = TypeVar("DispatchClass", bound=type[ModelDispatch[Any]])


class Registry:
    """The dispatches of this process, in the order they were registered."""

    def __init__(self) -> None:
        self._dispatches: list[ModelDispatch[Any]] = []
        self._by_table: dict[type[Model], list[ModelDispatch[Any]]] = {}
        self._listeners: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[ModelDispatch[Any]]:
        return iter(self._dispatches)

    def __len__(self) -> int:
        return len(self._dispatches)

    def add(self, dispatch_class: type[ModelDispatch[Any]], *models: type[Model]) -> None:
        """Register a class for models. Raises ``InvalidDispatch`` where that makes no sense."""
        if not models:
            raise InvalidDispatch(
                f"register() needs a model: @register(Order) over {dispatch_class!r}."
            )
        given: Any = dispatch_class
        if not (isinstance(given, type) and issubclass(given, ModelDispatch)):
            raise InvalidDispatch(f"{dispatch_class!r} is not a subclass of ModelDispatch.")
        for model in models:
            candidate: Any = model
            if not (isinstance(candidate, type) and issubclass(candidate, Model)):
                raise InvalidDispatch(
                    f"{dispatch_class.__name__} is registered for {model!r}, which is no model."
                    f"{_import_of(model)}"
                )
            if any(type(d) is dispatch_class and d.model is model for d in self._dispatches):
                raise InvalidDispatch(
                    f"{dispatch_class.__name__} is registered for {model._meta.label} already. "
                    "Leave one of the two out."
                )
            self._dispatches.append(dispatch_class(model))
        self._changed()

    def remove(self, dispatch_class: type[ModelDispatch[Any]]) -> None:
        """Forget a class for all its models; unknown ones are no error."""
        self._dispatches = [d for d in self._dispatches if type(d) is not dispatch_class]
        self._changed()

    def find(self, name: str, model: str) -> ModelDispatch[Any] | None:
        """Return the dispatch that rows with this name and model label belong to."""
        for dispatch in self._dispatches:
            if dispatch.name == name and dispatch.model._meta.label_lower == model:
                return dispatch
        return None

    def of_table(self, model: type[Model]) -> list[ModelDispatch[Any]]:
        """Return the dispatches whose objects are rows of this concrete model's own table."""
        return self._by_table.get(model, [])

    def pairs(self) -> set[tuple[str, str]]:
        """Return the names and model labels that rows of this process's dispatches carry."""
        return {(d.name, d.model._meta.label_lower) for d in self._dispatches}

    def listen(self, listener: Callable[[], None]) -> None:
        """Call the listener now and after each change."""
        self._listeners.append(listener)
        listener()

    def _changed(self) -> None:
        self._by_table = {}
        for dispatch in self._dispatches:
            table = dispatch.model._meta.concrete_model
            if table is not None:
                self._by_table.setdefault(table, []).append(dispatch)
        for listener in self._listeners:
            listener()


def _import_of(named: Any) -> str:
    """Say how to write a model that was named by its label, as in Django's relations."""
    app, dot, name = named.rpartition(".") if isinstance(named, str) else ("", "", "")
    return f" Import the class: from {app}.models import {name}." if dot else ""


registry = Registry()


def register(*models: type[Model]) -> Callable[[DispatchClass], DispatchClass]:
    """Register the decorated ``ModelDispatch`` for one or more models.

    Raises ``InvalidDispatch`` for something that is no model or no dispatch, and for the same
    class and model twice.
    """

    for model in models:
        given: Any = model
        if isinstance(given, type) and issubclass(given, ModelDispatch):
            raise InvalidDispatch(
                f"@register over {given.__name__} names no model: write @register(Order)."
            )

    def decorate(dispatch_class: DispatchClass) -> DispatchClass:
        registry.add(dispatch_class, *models)
        return dispatch_class

    return decorate
