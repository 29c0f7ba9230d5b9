import gc
import weakref

import pytest
import requests

from signal_dispatch.entries import Endpoint
from signal_dispatch.sessions import new_session
from tests.calling import call
from tests.once import ONCE

pytestmark = [ONCE, pytest.mark.signal_dispatch_network]


def test_connections_of_one_host_are_not_those_of_another(receiver):
    session = new_session(Endpoint("crm", receiver.url))
    adapter = session.get_adapter(receiver.url)

    def connections(url, **more):
        prepared = requests.Request("POST", url).prepare()
        return adapter.get_connection_with_tls_context(prepared, **{"verify": True, **more})

    here = connections(receiver.url + "a")
    assert connections(receiver.url + "b/c?d=e") is here
    through = connections(receiver.url, proxies={"http": "http://proxy.example.com:3128"})
    assert through.proxy.host == "proxy.example.com"
    assert connections(receiver.url) is here
    assert connections("http://crm.example.com/a").host == "crm.example.com"
    assert connections("http://crm.example.com:444/a").port == 444
    other = connections("https://crm.example.com/a")
    assert other.scheme == "https"
    assert connections("https://crm.example.com/a", verify=False) is not other


def test_a_session_that_was_closed_keeps_no_connection_and_can_be_used_again(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url)
    session = sessions.get(endpoint)
    call(endpoint, sessions)
    prepared = requests.Request("POST", receiver.url).prepare()
    adapter = session.get_adapter(receiver.url)
    kept = weakref.ref(adapter.get_connection_with_tls_context(prepared, verify=True))
    session.close()
    gc.collect()
    assert kept() is None

    call(endpoint, sessions)
    assert sessions.get(endpoint) is session
    assert len(receiver.requests) == 2
