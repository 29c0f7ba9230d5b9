"""The link from an object's page in the admin to its deliveries."""

import re
from html import unescape

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.urls import path

from signal_dispatch.admin import DeliveryAdmin
from signal_dispatch.admin.objects import TEMPLATE, link_objects
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.once import ONCE
from tests.shop.models import Customer, Order, OrderProxy, PriorityOrder, Tag
from tests.test_admin_list import shown

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__), ONCE]


class OwnPage(admin.ModelAdmin):
    """One that brings a template of its own."""

    change_form_template = "admin/change_form.html"


class Unlinked(admin.ModelAdmin):
    """One that wants no link."""

    signal_dispatch_link = False


site = admin.AdminSite()
site.register(Delivery, DeliveryAdmin)
site.register(User)
site.register([Order, OrderProxy, PriorityOrder])
site.register(Customer, OwnPage)
site.register(Tag, Unlinked)
urlpatterns = [path("admin/", site.urls)]


@pytest.fixture
def page(declare, admin_client):
    declare(Order)
    declare(Customer, fields=["name"], name="shop.Customers")
    declare(Tag, fields=["name"], name="shop.Tags")

    def page(obj):
        link_objects(site)
        options = obj._meta
        return admin_client.get(f"/admin/{options.app_label}/{options.model_name}/{obj.pk}/change/")

    yield page
    for model in (Order, OrderProxy, PriorityOrder, Customer, Tag):
        site.get_model_admin(model).change_form_template = None


def links(answer):
    return [
        unescape(link) for link in re.findall(r'href="([^"]*)" class="sd-history"', answer.text)
    ]


def test_the_page_of_an_object_links_to_its_deliveries(page, admin_client):
    order, other = Order.objects.create(number="A-1"), Order.objects.create(number="A-2")
    delivery(object_pk=other.pk)
    Delivery.objects.exclude(object_pk=order.pk).update(dispatch="alien")
    mine = Delivery.objects.get(object_pk=order.pk)

    answer = page(order)

    assert "historylink" in answer.text, "the page is still what it was"
    (link,) = links(answer)
    assert shown(admin_client.get(link)) == [mine.pk]


def test_whatever_template_it_has_is_extended(page):
    customer = Customer.objects.create(name="Ann")

    assert len(links(page(customer))) == 1
    assert "historylink" in page(customer).text


def test_children_and_proxies_lead_to_the_same_deliveries(page, admin_client):
    child = PriorityOrder.objects.create(number="A-1")
    (mine,) = Delivery.objects.all()
    for obj in (child, OrderProxy.objects.get()):
        (link,) = links(page(obj))
        assert shown(admin_client.get(link)) == [mine.pk]


def test_an_object_that_two_models_tell_of_has_two_links(page, declare):
    declare(OrderProxy, name="shop.Proxied")
    proxy = OrderProxy.objects.create(number="A-1")

    answer = page(proxy)

    assert len(links(answer)) == 2
    assert "Deliveries (shop.orderproxy)" in answer.text


def test_whoever_wants_none_has_none(page):
    tag = Tag.objects.create(name="new")

    assert links(page(tag)) == []
    assert site.get_model_admin(Tag).change_form_template is None


def test_what_nobody_is_told_of_has_none(page, admin_user):
    page(admin_user)

    assert site.get_model_admin(User).change_form_template != TEMPLATE


def test_the_page_to_add_one_has_none(page, admin_client):
    link_objects(site)

    answer = admin_client.get("/admin/shop/order/add/")

    assert (answer.status_code, links(answer)) == (200, [])


def test_whoever_may_not_view_deliveries_sees_no_link(page, client):
    order = Order.objects.create(number="A-1")
    link_objects(site)
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="change_order"))
    client.force_login(user)

    answer = client.get(f"/admin/shop/order/{order.pk}/change/")

    assert (answer.status_code, links(answer)) == (200, [])


def test_loading_the_addresses_links_them(declare):
    declare(Order)
    assert site.urls
    assert site.get_model_admin(Order).change_form_template == TEMPLATE
    site.get_model_admin(Order).change_form_template = None
