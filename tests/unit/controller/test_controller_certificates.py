"""What the journal, a scrape and a snapshot have of the certificates that a fleet file names."""

from pathlib import Path
from time import time

from certificate_dates import dated
from controller_parts import PaperDriver, fleet_of, spec_of

from tritonfleet.config import FleetSpec
from tritonfleet.controller.certificates import CertificateDesk
from tritonfleet.controller.fleet import Fleet
from tritonfleet.controller.journal import Journal
from tritonfleet.controller.metrics import families
from tritonfleet.controller.metrics_server import state_of
from tritonfleet.controller.snapshot import snapshot

DAY = 86400.0


class Desk:
    """A desk, and the spec with one certificate whose dates a test changes."""

    def __init__(self, folder: Path) -> None:
        self.pem = dated(folder / "server.pem", (time() - 300 * DAY, time() + 65 * DAY))
        tls = {"cert": str(self.pem), "key": str(self.pem.with_suffix(".key"))}
        self.spec: FleetSpec = spec_of(folder, router={"tls": tls})
        self.journal = Journal(folder / "events.jsonl")
        self.desk = CertificateDesk(self.journal)

    async def look(self, *, left_days: float) -> list[tuple[str, str]]:
        """What the journal has more after one more look, at a certificate that lasts so long."""
        dated(self.pem, (time() - 300 * DAY, time() + left_days * DAY))
        before = self.journal.seq
        await self.desk.look(self.spec)
        return [(event.type, event.reason) for event in self.journal.since(before)]


async def test_the_journal_hears_of_each_change_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    use = "router.tls.cert"
    assert await desk.look(left_days=65) == []
    ((kind, said),) = await desk.look(left_days=12.5)
    assert kind == "certificate.ending"
    assert said.startswith(f"{use} expires in 12 days, on 2")
    assert await desk.look(left_days=12.4) == []
    ((kind, said),) = await desk.look(left_days=-0.1)
    assert kind == "certificate.expired"
    assert said.startswith(f"{use} expired on 2")
    ((kind, said),) = await desk.look(left_days=365)
    assert kind == "certificate.good"
    assert said.startswith(f"{use} is valid until 2")


async def test_a_file_that_is_gone_is_told_and_forgotten_with_its_section(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.pem.unlink()
    await desk.desk.look(desk.spec)
    assert [event.type for event in desk.journal.since(0)] == ["certificate.unread"]
    await desk.desk.look(spec_of(tmp_path))
    assert desk.desk.found == ()
    await desk.desk.look(desk.spec)  # the section is back, and so is what is wrong with it
    assert [event.type for event in desk.journal.since(0)] == ["certificate.unread"] * 2


async def test_snapshot_and_scrape_have_the_date(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    fleet: Fleet = fleet_of(tmp_path, PaperDriver(), desk.spec)
    await fleet.certificates.look(desk.spec)
    (found,) = snapshot(fleet).certificates
    assert (found.use, found.path) == ("router.tls.cert", str(desk.pem))
    samples = {
        sample.name: (sample.labels, sample.value)
        for family in families(state_of(fleet, {}))
        for sample in family.samples
        if "certificate" in family.name
    }
    assert samples == {
        "tritonfleet_certificate_expiry_timestamp_seconds": ({"use": "router.tls.cert"}, found.ends_at)
    }
    desk.pem.unlink()
    await fleet.certificates.look(desk.spec)
    assert not any(f.samples for f in families(state_of(fleet, {})) if "certificate" in f.name)
    await fleet.close()
