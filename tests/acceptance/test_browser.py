"""The admin and the page of the demo as a person has them before them, in a real browser.

``SCREENSHOTS=docs/img`` writes the pictures that the documents show.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from demo_site import servers
from demo_site.visitor import Visitor
from tests.once import ONCE
from tests.run import ROOT
from tests.services import required
from tests.waiting import eventually

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ADMIN = "admin/signal_dispatch/delivery/"
MANY = 5_000
#: Writes deliveries that were given up, of orders that the CRM has not heard of.
FAILED = """
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
Delivery.objects.bulk_create(
    (
        Delivery(
            dispatch="shop.OrderToCRM", endpoint="crm", event="updated", model="shop.order",
            object_pk=10_000 + n, method="PUT", path=f"orders/X-{n}",
            headers={"Content-Type": "application/json"}, body=b'{"status": "paid"}',
            state="failed", attempts=1, last_status=400, error_class="status",
            reason="It answered 400 Bad Request.", created_at=DatabaseNow(),
            finished_at=DatabaseNow(),
        )
        for n in range(%d)
    ),
    batch_size=500,
)
"""

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM.exists() and find_spec("playwright")) and not required(),
    reason=f"No browser at {CHROMIUM}, or no Playwright for Python.",
)
pytestmark = [ONCE, needs_chromium]


class Demo:
    """The demo's shop and CRM, and somebody who buys there."""

    def __init__(self, running, var):
        self.url, self.control, self._var = running.shop_url, running.control_url, var
        self.visitor = Visitor(running.shop_url, running.control_url)
        running.wait_until("the shop's page opens", self.visitor.opens_page)

    def behave(self, mode, **more):
        asked = urllib.request.Request(self.control, json.dumps({"mode": mode, **more}).encode())  # noqa: S310
        with urllib.request.urlopen(asked, timeout=10):  # noqa: S310
            pass

    def paid_order(self):
        self.visitor.submit("orders/add/", email="ada@example.com", total="12.50")
        number = self.visitor.newest_order()
        self.visitor.submit("orders/pay/", number=number)
        return number

    def calls(self, number):
        return self.visitor.order(number)["calls"]

    def run(self, code):
        known = {"DJANGO_SETTINGS_MODULE": "demo_site.settings", "DEMO_VAR": str(self._var)}
        command = [sys.executable, "-m", "demo_site.manage", "shell", "-c", code]
        subprocess.run(command, cwd=ROOT, env=os.environ | known, check=True, capture_output=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        var = tmp_path_factory.mktemp("demo")
        patch.setattr(servers.settings, "VAR_DIR", var)
        for name in ("SHOP_PORT", "CRM_PORT"):
            patch.setenv(name, "0")
        with servers.running() as running:
            yield Demo(running, var)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield made
        made.close()


@pytest.fixture(scope="module")
def session(browser, demo):
    """Log in once, and return what a browser keeps of that."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{demo.url}admin/")
    page.keyboard.type(servers.DEMO_USER)  # the first field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type(servers.DEMO_USER)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{demo.url}admin/")
    kept = context.storage_state()
    context.close()
    return kept


@pytest.fixture
def page(browser, session, demo):
    demo.behave("healthy")
    context = browser.new_context(storage_state=session, base_url=demo.url)
    context.set_default_timeout(20_000)
    yield context.new_page()
    resumed = context.new_page()
    resumed.goto(f"{ADMIN}endpoint/?endpoint=crm")
    if resumed.query_selector("button:has-text('Resume')"):
        resumed.click("button:has-text('Resume')")
        resumed.click("input[value^='Yes']")
    context.close()


@pytest.fixture
def pictured(tmp_path):
    """Return what takes a picture of a page under a name."""
    place = os.environ.get("SCREENSHOTS")
    directory = ROOT / place if place else tmp_path

    def pictured(page, name):
        directory.mkdir(parents=True, exist_ok=True)
        # On a busy machine the browser takes its time to settle.
        page.screenshot(path=directory / f"{name}.png", full_page=True, timeout=90_000)

    return pictured


def reload_until(page, text):
    def there():
        page.reload()
        return text in page.inner_text("#content")

    eventually(there, 60)


def failed_order(demo):
    demo.behave("fail", status=400)
    number = demo.paid_order()
    eventually(lambda: demo.calls(number) and demo.calls(number)[0]["state"] == "failed", 30)
    demo.behave("healthy")
    return number


def test_from_a_failed_call_to_its_repair_without_leaving_the_admin(page, demo, pictured):
    number = failed_order(demo)

    page.goto("admin/")
    page.click("text=Deliveries")
    page.click(".sd-nav >> text=Overview")
    assert "FAILED within an hour" in page.inner_text("#content")
    pictured(page, "admin-overview")
    page.click(".sd-states a:has-text('failed')")
    pictured(page, "admin-deliveries")
    page.click("#result_list tbody tr:first-child .field-number a")
    told = page.inner_text("#content")
    assert "400" in told
    assert f"orders/{number}" in told
    page.click("button:has-text('Retry now')")
    assert "1 of the 1 chosen deliveries will be affected." in page.inner_text("#content")
    page.click("input[value^='Yes']")
    assert "Retry now: 1 delivery." in page.inner_text(".messagelist")
    reload_until(page, "✔ delivered")
    pictured(page, "admin-delivery")

    assert demo.visitor.held_by_crm(number)["status"] == "paid"


def test_all_that_match_a_filter_are_retried_once_confirmed(page, demo):
    demo.run(FAILED % MANY)

    page.goto(f"{ADMIN}?state=failed&endpoint=crm")
    page.check("#action-toggle")
    page.click("text=/Select all/")
    page.select_option("select[name=action]", "retry")
    page.click("button[name=index]")
    assert f"{MANY} of all {MANY} deliveries that match" in page.inner_text("#content")
    assert demo.visitor.held_by_crm("X-0") is None
    page.click("input[value^='Yes']")
    assert "begun for all that match" in page.inner_text(".messagelist")
    page.click(".sd-nav >> text=Overview")
    reload_until(page, f"{MANY} of {MANY}\tdone")
    last = f"X-{MANY - 1}"
    eventually(lambda: demo.visitor.held_by_crm(last), 120)


def test_an_endpoint_is_paused_tried_and_resumed(page, demo, pictured):
    page.goto(ADMIN)
    page.click(".sd-nav >> text=Endpoints")
    page.click("table >> text=crm")
    page.click("button:has-text('Pause')")
    page.fill("input[name=reason]", "The CRM is moving.")
    page.click("input[value^='Yes']")
    assert "‖ paused" in page.inner_text("#content")
    assert "The CRM is moving." in page.inner_text(".sd-callout")
    # What the process learned before the pause is good for a second.
    number = demo.paid_order()
    eventually(lambda: demo.calls(number), 20)

    page.click("button:has-text('Send a test call')")
    page.select_option("select[name=method]", "PUT")
    page.fill("input[name=path]", "orders/T-1")
    page.click("input[value^='Yes']")
    assert "PUT /orders/T-1" in page.inner_text("#content")
    assert page.inner_text(".sd-result") in ("200", "201")
    page.click("text=Back to the endpoint")
    page.click("button:has-text('Resume')")
    page.click("input[value^='Yes']")
    assert "✔ open" in page.inner_text("#content")
    eventually(lambda: demo.calls(number)[0]["state"] == "delivered", 60)
    failed_order(demo)
    reload_until(page, "The same as a table")
    pictured(page, "admin-endpoint")
    page.click(".sd-nav >> text=Endpoints")
    pictured(page, "admin-endpoints")


def test_the_demo_page_shows_what_happens_without_being_loaded_again(page, demo, pictured):
    complaints = []
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.goto("/")
    page.click("#switch-500")
    page.wait_for_selector("#switch-500[aria-pressed=true]")
    page.evaluate("window.loadedOnce = true")
    number = demo.paid_order()  # in another window
    row = f"[data-part=orders] tr:has-text('{number}')"
    page.wait_for_selector(f"{row} >> text=500")
    pictured(page, "demo-page")
    demo.behave("healthy")  # as somebody else, too
    page.wait_for_selector("#switch-healthy[aria-pressed=true]")
    page.wait_for_selector(f"{row} >> text=delivered")
    page.wait_for_selector(f"[data-part=crm] tr:has-text('{number}')")

    assert page.evaluate("window.loadedOnce")
    assert complaints == []
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_keyboard_is_enough(page, demo):
    page.goto(ADMIN)
    press(page, "Endpoints")
    page.wait_for_url(re.compile("endpoints/"))
    press(page, "crm")
    page.wait_for_url(re.compile("endpoint=crm"))
    press(page, "Pause")
    page.wait_for_selector("input[name=reason]")
    press(page, "Yes: Pause")
    page.wait_for_selector("text=‖ paused")
    press(page, "Resume")
    page.wait_for_selector("input[value='Yes: Resume']")
    press(page, "Yes: Resume")
    page.wait_for_selector("text=✔ open")


def press(page, label):
    """Go with the Tab key to what has this label, see that the focus shows, and press it."""
    for _step in range(150):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(() => { const at = document.activeElement, look = getComputedStyle(at);"
            " return [at.matches('input') ? at.value : at.innerText,"
            " look.outlineStyle + look.boxShadow]; })()"
        )
        if (focused[0] or "").strip() == label:
            assert focused[1] != "nonenone", label
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"The Tab key does not come to {label!r}.")


PAGES = ["", "overview/", "endpoints/", "endpoint/?endpoint=crm", "dispatches/", "?state=failed"]


def test_no_page_is_wider_than_a_telephone(page, demo, pictured):
    failed_order(demo)
    page.set_viewport_size({"width": 400, "height": 800})
    newest = page.request.get(ADMIN).text()
    found = re.search(r'field-number"><a href="/([^"?]*)', newest)[1]
    for address in [*PAGES, found.removeprefix(ADMIN)]:
        page.goto(ADMIN + address)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400, address
        for place in page.query_selector_all("#content table.sd-cards td:not(:empty)"):
            box = place.bounding_box()
            assert box["x"] + box["width"] <= 400, address
    page.goto(f"{ADMIN}endpoints/")
    label = "getComputedStyle(document.querySelector('.sd-cards td'), '::before').content"
    assert page.evaluate(label) == '"State"'
    pictured(page, "admin-endpoints-narrow")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_dark(page, demo, scheme, pictured):
    failed_order(demo)
    page.emulate_media(color_scheme=scheme)
    for address in PAGES:
        page.goto(ADMIN + address)
        for place in page.query_selector_all(".sd-pill, .sd-result, .sd-callout, .sd-below"):
            assert contrast(place) >= 4.5, (address, place.inner_text())
    page.goto(f"{ADMIN}endpoint/?endpoint=crm")
    if scheme == "dark":
        pictured(page, "admin-endpoint-dark")


def contrast(place):
    """Return the contrast of an element's text (WCAG 2.2, 1.4.3)."""
    ink, paper = place.evaluate(
        "(at) => { const ink = getComputedStyle(at).color; let under = at, paper;"
        " do { paper = getComputedStyle(under).backgroundColor; under = under.parentElement; }"
        " while (under && /, 0\\)$|transparent/.test(paper)); return [ink, paper]; }"
    )
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_pages_stand_under_a_strict_content_security_policy(page, demo):
    failed_order(demo)
    refused = []
    page.on("console", lambda line: refused.append(line.text) if line.type == "error" else None)

    def strictly(route):
        if route.request.resource_type != "document":
            route.continue_()
            return
        answer = route.fetch()
        policy = {"content-security-policy": "default-src 'self'"}
        route.fulfill(response=answer, headers=answer.headers | policy)

    page.route("**/*", strictly)
    for address in PAGES:
        page.goto(ADMIN + address)
        assert page.inner_text(".sd-nav")
    assert page.query_selector(".sd-chart, #result_list")
    assert refused == []
