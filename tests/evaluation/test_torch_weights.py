import http.client
import io
import os
import pickle
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_cxrgan.evaluation import torch_weights
from keras_cxrgan.evaluation.torch_weights import locate_fid_weights, read_state_dict, sha256_of

# Written by torch 2.13 in its two formats; all but the last six share one storage.
FILES = {kind: Path(__file__).parent / "data" / f"tensors_{kind}.pth" for kind in ("zip", "legacy")}
WHOLE = np.arange(24, dtype=np.float32).reshape(4, 6)
TENSORS = {
    "whole": WHOLE,
    "transposed": WHOLE.T,
    "window": WHOLE[1:3, 2:5],
    "column": WHOLE[:, 1],
    "half": np.array([1.5, -2.25], np.float16),
    "double": np.array([[1 / 3]]),
    "count": np.array(7),
    "expanded": np.array([5, 5, 5], np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.ones(2, np.float32),
}


@pytest.mark.parametrize("kind", FILES)
def test_both_formats_give_what_torch_saved_with_strides_and_offsets(kind):
    arrays = read_state_dict(FILES[kind])
    assert list(arrays) == list(TENSORS)
    for name, expected in TENSORS.items():
        np.testing.assert_array_equal(arrays[name], expected, strict=True)


def test_the_reader_agrees_with_torch(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "module.pth"
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 5), torch.nn.BatchNorm2d(3))
    torch.save(module.state_dict(), path)
    arrays = read_state_dict(path)
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


class Runs:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save_zip(path, state):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(state, protocol=2))


def save_legacy(path, state):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, state, []]
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))


@pytest.mark.parametrize("save", [save_zip, save_legacy])
@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, np.frombuffer])
def test_a_file_that_wants_to_run_something_is_refused_and_runs_nothing(tmp_path, save, function):
    created = tmp_path / "created"
    argument = str(created) if function is os.mkdir else f"__import__('os').mkdir({str(created)!r})"
    save(tmp_path / "evil.pth", {"fc.bias": Runs(function, argument)})
    with pytest.raises(
        ValueError, match=rf"refused: this file wants to run \w+.{function.__name__}"
    ):
        read_state_dict(tmp_path / "evil.pth")
    assert not created.exists()


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_one_line_of_error_wherever_it_is_cut(tmp_path, kind):
    whole, path = FILES[kind].read_bytes(), tmp_path / "cut.pth"
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"\A[^\n]*cut.pth: [^\n]*\Z"):
            read_state_dict(path)


def test_a_flipped_byte_in_the_numbers_of_a_zip_file_is_noticed(tmp_path):
    damaged = bytearray(FILES["zip"].read_bytes())
    damaged[damaged.index(WHOLE.tobytes()) + 10] ^= 1
    (tmp_path / "damaged.pth").write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged checkpoint"):
        read_state_dict(tmp_path / "damaged.pth")


def test_a_tensor_cannot_reach_outside_its_numbers(tmp_path):
    # The 4 of the shape (4, 6) becomes 5; reading on would show the memory behind the storage.
    whole = FILES["legacy"].read_bytes()
    shape = b"K\x04K\x06\x86"
    assert shape in whole
    (tmp_path / "large.pth").write_bytes(whole.replace(shape, b"K\x05K\x06\x86", 1))
    with pytest.raises(ValueError, match="outside its 24 numbers"):
        read_state_dict(tmp_path / "large.pth")


def test_foreign_files_are_told_from_damaged_ones(tmp_path):
    path = tmp_path / "foreign.pth"
    for content in (b"", b"<!doctype html>", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no PyTorch checkpoint"):
            read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        read_state_dict(path)
    save_legacy(path, {"epoch": 3})
    with pytest.raises(ValueError, match="no state dict"):
        read_state_dict(path)
    with pytest.raises(ValueError, match="No such file"):
        read_state_dict(tmp_path / "absent.pth")


def test_sha256_of_a_file_longer_than_one_block(tmp_path):
    # The published digest of one million letters a (FIPS 180-2), and twice a block of zeros.
    (tmp_path / "a").write_bytes(b"a" * 1_000_000)
    assert sha256_of(tmp_path / "a") == (
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    )
    (tmp_path / "b").write_bytes(bytes(1 << 21) + b"end")
    assert sha256_of(tmp_path / "b") != sha256_of(tmp_path / "a")


CONTENT = b"stands for 96 MB of weights"
CONTENT_SHA256 = "46b681215f17df66f2ca36eb3866aa645b45ad8db3c5f840cd88aeecadf97ec2"


class Network:
    """Stands for urllib.request.urlopen: remembers what was asked and gives one reply."""

    def __init__(self):
        self.reply = CONTENT
        self.asked = []

    def __call__(self, url, timeout):
        self.asked.append(url)
        if isinstance(self.reply, Exception):
            raise self.reply
        return io.BytesIO(self.reply)


@pytest.fixture
def network(tmp_path, monkeypatch):
    replacement = Network()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(urllib.request, "urlopen", replacement)
    monkeypatch.setitem(torch_weights.FID_WEIGHTS, "sha256", CONTENT_SHA256)
    return replacement


def test_weights_are_downloaded_once_into_the_keras_cache(network, tmp_path):
    path = locate_fid_weights()
    assert path == tmp_path / "keras" / "models" / "pt_inception-2015-12-05-6726825d.pth"
    assert path.read_bytes() == CONTENT
    assert locate_fid_weights() == path
    (address,) = network.asked
    assert address == (
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth"
    )


def test_a_path_of_ones_own_needs_no_network(network, tmp_path):
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert locate_fid_weights(tmp_path / "mine.pth") == tmp_path / "mine.pth"
    assert network.asked == []


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        TimeoutError("timed out"),
        http.client.RemoteDisconnected("closed"),
    ],
)
def test_offline_the_error_names_the_file_the_address_and_the_flag(network, error, tmp_path):
    network.reply = error
    with pytest.raises(
        ValueError,
        match=r"\Apt_inception-2015-12-05-6726825d.pth .*https://github.com/.*--weights PATH\Z",
    ):
        locate_fid_weights()
    assert list((tmp_path / "keras").rglob("*.*")) == []


def test_a_wrong_download_is_not_kept(network, tmp_path):
    network.reply = b"<html>please log in</html>"
    with pytest.raises(ValueError, match=f"{CONTENT_SHA256}.*--weights PATH"):
        locate_fid_weights()
    assert list((tmp_path / "keras").rglob("*.*")) == []


@pytest.mark.parametrize("place", ["keras/models/pt_inception-2015-12-05-6726825d.pth", "mine.pth"])
def test_a_file_with_a_wrong_hash_is_refused_naming_both(network, tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a" * 1_000_000)
    with pytest.raises(ValueError, match=f"{path.name}.*cdc76e5c9914fb92.*{CONTENT_SHA256}"):
        locate_fid_weights(path if place == "mine.pth" else None)


def test_a_missing_path_is_named(network, tmp_path):
    with pytest.raises(ValueError, match="absent.pth.*https://github.com/"):
        locate_fid_weights(tmp_path / "absent.pth")
