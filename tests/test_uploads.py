"""``get_files()``: fields and files in one body, opened anew for each attempt."""

import io
import tempfile
from email.parser import BytesParser
from email.policy import HTTP

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError

from signal_dispatch import RetryPolicy
from signal_dispatch.exceptions import PayloadError
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.signing import verify
from signal_dispatch.uploads import encode
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order, Tag

pytestmark = [pytest.mark.django_db, ONCE]


def parts(body, content_type):
    """Read a multipart body as a receiver does: name, file name, content type, content."""
    parser = BytesParser(policy=HTTP)
    message = parser.parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_content_type() if part["Content-Type"] else None,
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    ]


def received(request):
    return parts(request.body, request.headers["Content-Type"])


@pytest.fixture
def uploading(declare):
    def uploading(get_files, **attributes):
        defaults = {"get_files": get_files, "retry": RetryPolicy([0, 0, 0], jitter=0)}
        return declare(Order, **defaults | attributes)

    return uploading


# The body.


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (b"a", ("f", None, "application/octet-stream", b"a")),
        (bytearray(b"a"), ("f", None, "application/octet-stream", b"a")),
        (io.BytesIO(b"a"), ("f", None, "application/octet-stream", b"a")),
        (("a.pdf", b"a"), ("f", "a.pdf", "application/pdf", b"a")),
        (("a.pdf", memoryview(b"a"), "text/x-a"), ("f", "a.pdf", "text/x-a", b"a")),
        (("a.pdf", io.BytesIO(b"a")), ("f", "a.pdf", "application/pdf", b"a")),
        (ContentFile(b"a", name="deep/a.png"), ("f", "a.png", "image/png", b"a")),
    ],
)
def test_a_file_may_be_given_in_several_ways(file, expected):
    name, filename, content_type, content = expected

    assert parts(*encode([], {"f": file}, "limit")) == [
        (name, filename or "f", content_type, content)
    ]


def test_fields_come_first_and_a_name_may_hold_several_files():
    body, content_type = encode([("ü", "ß"), ("a", "1")], {"f": [b"1", ("2", b"2")]}, "limit")

    assert content_type == "multipart/form-data; boundary=limit"
    assert [(name, filename) for name, filename, _, _ in parts(body, content_type)] == [
        ("ü", None),
        ("a", None),
        ("f", "f"),
        ("f", "2"),
    ]


def test_a_file_that_is_only_a_descriptor_is_named_as_its_field(tmp_path):
    with tempfile.TemporaryFile() as file:
        assert isinstance(file.name, int)
        assert parts(*encode([], {"scan": file}, "limit"))[0][1] == "scan"


def test_no_name_of_a_file_adds_a_header():
    body, _ = encode([], {'f"\r\nX: 1': ('a"\r\nY: 2', b"")}, "limit")

    assert b"\r\nX:" not in body
    assert b"\r\nY:" not in body


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([b"a"], "A dict of files"),
        ({"f": "/etc/passwd"}, "'f' is str, which is neither bytes nor an open file"),
        ({"f": io.StringIO("a")}, "binary mode"),
        ({"f": ("a", b"", "text/plain", {})}, "'f' is tuple"),
        ({"f": None}, "'f' is NoneType"),
    ],
)
def test_what_is_no_file_is_refused(files, words):
    with pytest.raises(PayloadError, match=words):
        encode([], files, "limit")


def test_every_file_is_closed_whatever_another_one_is():
    opened = [io.BytesIO(b"a"), io.BytesIO(b"b")]
    with pytest.raises(PayloadError):
        encode([], {"a": opened[0], "wrong": 3, "b": ("b", opened[1])}, "limit")

    assert [file.closed for file in opened] == [True, True]


# The call.


def test_the_stored_payload_is_the_fields(uploading, receiver):
    def get_payload(self, order, change):
        return {"name": order.number, "total": 1.5, "tags": ["a", "ü"], "none": None, "yes": True}

    uploading(lambda self, delivery: {"scan": ("a.pdf", b"%PDF")}, get_payload=get_payload)
    Order.objects.create(number="Ä-1")
    attempt()

    (request,) = receiver.requests
    assert received(request) == [
        ("name", None, None, "Ä-1".encode()),
        ("total", None, None, b"1.5"),
        ("tags", None, None, '["a","ü"]'.encode()),
        ("none", None, None, b"null"),
        ("yes", None, None, b"true"),
        ("scan", "a.pdf", "application/pdf", b"%PDF"),
    ]
    (delivery,) = Delivery.objects.all()
    assert delivery.state == "delivered"
    assert delivery.payload["tags"] == ["a", "ü"], "stored as it is without files"


def test_a_form_is_the_fields_too(uploading, receiver):
    def get_payload(self, order, change):
        return {"name": "a b", "tag": ["x", "y"], "empty": None}

    uploading(lambda self, delivery: {"f": b""}, get_payload=get_payload, encoding="form")
    Order.objects.create(number="A-1")
    attempt()

    assert [(p[0], p[3]) for p in received(receiver.requests[0])] == [
        ("name", b"a b"),
        ("tag", b"x"),
        ("tag", b"y"),
        ("empty", b""),
        ("f", b""),
    ]


def test_files_are_opened_for_each_attempt_and_closed(uploading, receiver, tmp_path):
    storage = FileSystemStorage(tmp_path)
    storage.save("scan.txt", ContentFile(b"first"))
    opened = []

    def get_files(self, delivery):
        opened.append(storage.open("scan.txt"))
        return {"scan": opened[-1]}

    uploading(get_files)
    Order.objects.create(number="A-1")
    assert opened == [], "not opened with the save"
    receiver.reply(500)
    attempt()
    receiver.reply(200)
    attempt()

    first, second = receiver.requests
    assert len(opened) == 2
    assert all(file.closed for file in opened)
    assert first.body == second.body, "the same call under the same Idempotency-Key"
    assert received(second)[-1] == ("scan", "scan.txt", "text/plain", b"first")


def test_without_files_it_is_multipart_all_the_same_and_with_none_as_stored(uploading, receiver):
    uploading(lambda self, delivery: {} if delivery.payload["number"] == "A-1" else None)
    Order.objects.create(number="A-1")
    Order.objects.create(number="A-2")
    attempt()

    first, second = receiver.requests
    assert received(first) == [
        ("number", None, None, b"A-1"),
        ("status", None, None, b"draft"),
    ]
    assert second.json == {"number": "A-2", "status": "draft"}


def test_a_call_without_a_payload_may_carry_files(uploading, receiver):
    uploading(lambda self, delivery: {"f": b"1"}, fields=())
    Order.objects.create(number="A-1")
    attempt()

    assert received(receiver.requests[0]) == [("f", "f", "application/octet-stream", b"1")]


def test_a_method_without_a_body_is_asked_for_no_files(uploading, receiver):
    uploading(
        lambda self, delivery: {"f": b"1"},
        method={"created": "POST", "deleted": "delete"},
        on=["created", "deleted"],
    )
    Order.objects.create(number="A-1").delete()
    attempt()

    assert [r.headers.get("Content-Type", "")[:9] for r in receiver.requests] == ["multipart", ""]


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (FileNotFoundError(2, "No such file", "/media/a"), "FileNotFoundError: No such file"),
        (PayloadError("'f' is too large."), "get_files(): 'f' is too large."),
        # The text of another library's error may hold a signed URL.
        (
            RuntimeError("https://s3.example/?sig=s3cret"),
            "raised RuntimeError (test_uploads.py, l",
        ),
        (SystemExit(3), "get_files() called sys.exit()."),
    ],
)
def test_files_that_can_t_be_had_are_an_attempt_and_tried_again(
    uploading, receiver, raised, words, caplog
):
    broken = [raised]

    def get_files(self, delivery):
        if broken:
            raise broken.pop()
        return {"f": b"1"}

    uploading(get_files)
    Order.objects.create(number="A-1")
    attempt()

    (delivery,) = Delivery.objects.all()
    assert (delivery.state, delivery.error_class, delivery.attempts) == ("pending", "files", 1)
    assert delivery.reason.startswith("shop.Told: get_files()")
    assert words in delivery.reason
    assert "s3cret" not in delivery.reason + caplog.text + Attempt.objects.get().error
    assert receiver.requests == []
    attempt()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("delivered", 2)


def test_a_payload_without_names_is_told(uploading, receiver):
    uploading(lambda self, delivery: {"f": b"1"}, get_payload=lambda self, order, change: [1])
    Order.objects.create(number="A-1")
    attempt()

    assert (
        "Fields have names with values; the payload is a list. Beside get_files()"
        in Delivery.objects.get().reason
    )


def test_under_test_an_error_of_the_hook_is_raised(uploading, receiver):
    def get_files(self, delivery):
        raise ZeroDivisionError

    uploading(get_files)
    Order.objects.create(number="A-1")
    with pytest.raises(ZeroDivisionError):
        attempt(raising=True)


def test_the_hook_s_own_saves_make_no_call(uploading, receiver, declare):
    def get_files(self, delivery):
        order = Order.objects.get()
        order.save()
        Tag.objects.create(name="seen")
        return {}

    uploading(get_files)
    declare(Tag, name="shop.Tags", fields=["name"])
    Order.objects.create(number="A-1")
    attempt()

    assert sorted(Delivery.objects.values_list("dispatch", "hops")) == [
        ("shop.Tags", 1),
        ("shop.Told", 0),
    ]


def test_the_mock_gets_the_same_bytes(uploading, deliveries, mock_endpoint):
    uploading(lambda self, delivery: {"f": b"1"})
    crm = mock_endpoint("crm")
    crm.reply(200)
    Order.objects.create(number="A-1")
    deliveries.send()

    assert received(crm.calls[0])[-1] == ("f", "f", "application/octet-stream", b"1")


def test_a_database_that_is_away_costs_no_attempt(uploading, receiver):
    def get_files(self, delivery):
        raise OperationalError("gone away")

    uploading(get_files)
    Order.objects.create(number="A-1")
    with pytest.raises(OperationalError):  # whoever sends tries it again
        attempt()

    assert not Attempt.objects.exists()


def test_the_signature_is_over_the_bytes_that_are_sent(uploading, receiver, settings):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": receiver.url, "SECRETS": [secret]}}
    uploading(lambda self, delivery: {"f": io.BytesIO(b"\x00\xff")})
    Order.objects.create(number="A-1")
    attempt()

    (request,) = receiver.requests
    assert received(request)[-1] == ("f", "f", "application/octet-stream", b"\x00\xff")
    verify(request.body, request.headers, [secret])
