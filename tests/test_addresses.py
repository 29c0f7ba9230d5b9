import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_dispatch.addresses import is_public
from tests.once import ONCE

pytestmark = ONCE

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
NOT_PUBLIC_4 = [
    "0.0.0.0",  # noqa: S104 - nothing is bound
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]
NOT_PUBLIC_6 = [
    "::",
    "::1",
    "::7f00:1",
    "::8.8.8.8",  # IPv4-compatible, given up long ago
    "64:ff9b:1::1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:7f00:1::",  # Teredo
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
]
# IPv4 in the clothes of IPv6, each as it is put together from the four bytes.
CLOTHES = {
    "mapped": lambda ip: (0xFFFF << 32) | ip,
    "compatible": lambda ip: ip,
    "translated": lambda ip: (0xFFFF << 48) | ip,
    "NAT64": lambda ip: (0x64FF9B << 96) | ip,
    "local NAT64": lambda ip: (0x64FF9B0001 << 80) | ip,
    "6to4": lambda ip: (0x2002 << 112) | (ip << 80) | 1,
    "Teredo, client": lambda ip: (0x20010000 << 96) | (ip ^ 0xFFFFFFFF),
    "Teredo, server": lambda ip: (0x20010000 << 96) | (ip << 64),
    "ISATAP": lambda ip: (0xFE80 << 112) | (0x5EFE << 32) | ip,
}
NETWORKS = [ipaddress.ip_network(ip).supernet(new_prefix=16) for ip in NOT_PUBLIC_4]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_world_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC_4 + NOT_PUBLIC_6)
def test_addresses_of_somewhere_near_are_not(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["", "crm.example.com", "127.0.0.1:80", "1.2.3", "[::1]"])
def test_what_is_no_address_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize("address", NOT_PUBLIC_4)
def test_ipv4_in_other_clothes_stays_what_it_is(address, clothes):
    dressed = ipaddress.IPv6Address(CLOTHES[clothes](int(ipaddress.IPv4Address(address))))

    assert not is_public(str(dressed)), dressed


@given(st.ip_addresses(v=4))
def test_whatever_the_standard_library_refuses_is_refused(ip):
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        assert not is_public(str(ip))


@given(st.ip_addresses(v=6))
def test_nothing_outside_the_unicast_space_is_public_but_two_ways_to_ipv4(ip):
    if is_public(str(ip)):
        assert (
            ip in ipaddress.ip_network("2000::/3")
            or ip in ipaddress.ip_network("64:ff9b::/96")
            or ip.ipv4_mapped
        )
    else:
        assert ip not in ipaddress.ip_network("2a00::/12"), "given out in Europe"
