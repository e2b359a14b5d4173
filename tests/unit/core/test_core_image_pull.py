"""What a daemon says of a pull → how far it is."""

from tritonfleet.core.image_pull import ImagePull, Layer, after, summary

# A pull of three layers as dockerd 20.10 tells of it; sizes in bytes.
STEPS: list[dict[str, object]] = [
    {"status": "Pulling from library/x", "id": "1"},
    {"status": "Already exists", "progressDetail": {}, "id": "aaa"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "bbb"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "ccc"},
    {"status": "Waiting", "progressDetail": {}, "id": "ccc"},
    {"status": "Downloading", "progressDetail": {"current": 2_000_000, "total": 8_000_000}, "id": "bbb"},
    {"status": "Verifying Checksum", "progressDetail": {}, "id": "bbb"},
    {"status": "Download complete", "progressDetail": {}, "id": "bbb"},
    {"status": "Extracting", "progressDetail": {"current": 1_000_000, "total": 8_000_000}, "id": "bbb"},
    {"status": "Downloading", "progressDetail": {"current": 1_000_000, "total": 4_000_000}, "id": "ccc"},
    {"status": "Pull complete", "progressDetail": {}, "id": "bbb"},
    {"status": "Download complete", "progressDetail": {}, "id": "ccc"},
    {"status": "Pull complete", "progressDetail": {}, "id": "ccc"},
    {"status": "Digest: sha256:1"},
    {"status": "Status: Downloaded newer image for x:1"},
]


def pulled(count: int) -> ImagePull:
    pull = ImagePull("x:1", 0.0)
    for step in STEPS[:count]:
        pull = after(pull, step)
    return pull


def test_the_layers_follow_what_is_said() -> None:
    assert pulled(1).layers == ()  # the tag is no layer
    assert pulled(6).layers == (
        Layer("aaa", "Already exists"),
        Layer("bbb", "Downloading", 2_000_000, 8_000_000),
        Layer("ccc", "Waiting"),
    )
    assert pulled(9).layers[1] == Layer("bbb", "Extracting", 1_000_000, 8_000_000)
    assert all(layer.done for layer in pulled(len(STEPS)).layers)


def test_what_was_fetched_never_falls() -> None:
    fetched = [pulled(count).fetched for count in range(len(STEPS) + 1)]
    assert fetched == sorted(fetched)
    assert fetched[-1] == 12_000_000


def test_the_summary() -> None:
    assert summary(pulled(1)) == "the registry is being asked"
    assert summary(pulled(6)) == "1 of 3 layers, 2 MB fetched"
    assert summary(pulled(len(STEPS))) == "3 of 3 layers, 12 MB fetched"


def test_a_layer_whose_size_the_registry_does_not_tell_has_none() -> None:
    said = {"status": "Downloading", "progressDetail": {"current": 500, "total": -1}, "id": "a"}
    assert after(ImagePull("x", 0.0), said).layers == (Layer("a", "Downloading", 500, 0),)
