import base64

from belljar.node.engine.api import NetworkAttachment
from belljar.node.engine.gvisor.network import network_arguments

ATTACHMENT = NetworkAttachment("10.77.0.2", 30, "10.77.0.1", b"\x02\0\0\0\0\x02", 1500, "veth", 7)


def test_without_a_network_there_is_loopback_and_nothing_else() -> None:
    arguments = network_arguments(None, restoring=False)
    assert set(arguments) == {"LoopbackLinks", "IsRestore"}
    assert arguments["IsRestore"] is False


def test_an_attachment_becomes_eth0_with_its_subnet_and_gateway() -> None:
    arguments = network_arguments(ATTACHMENT, restoring=True)
    assert arguments["IsRestore"] is True
    (link,) = arguments["FDBasedLinks"]  # type: ignore[misc]
    assert link["Name"] == "eth0"
    assert link["Addresses"] == [{"Address": "10.77.0.2", "PrefixLen": 30}]
    assert link["Routes"][0]["Destination"] == {
        "IP": "10.77.0.0",
        "Mask": base64.b64encode(b"\xff\xff\xff\xfc").decode(),
    }
    assert base64.b64decode(link["LinkAddress"]) == ATTACHMENT.mac
    gateway = arguments["Defaultv4Gateway"]
    assert gateway["Name"] == "eth0"  # type: ignore[index]
    assert gateway["Route"]["Gateway"] == "10.77.0.1"  # type: ignore[index]
    assert gateway["Route"]["Destination"]["IP"] == "0.0.0.0"  # type: ignore[index]
