from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from nni_hyperfd.datasets.convert import matlab
from nni_hyperfd.datasets.convert.record import ConvertError, Face


def records(names, *rows):
    """A 1 x n MATLAB struct array."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for place, row in enumerate(rows):
        array[0, place] = row
    return array


@pytest.fixture
def mafa(tmp_path):
    rest = [5, 6, 7, 8, 0, 0, 9, 9, 1, 1, 1, 1, 3, -1, -1, -1, -1]
    train = records(
        ("orgImgName", "imgName", "label"),
        ("x.jpg", "train_00000001.jpg", np.array([[10, 20, 30, 40, *rest], [50, 20, 30, 40, *rest]], dtype=np.int16)),
        ("y.jpg", "train_00000002.jpg", np.array([[-3, 20, 30, 40, *rest]], dtype=np.int16)),
    )
    kinds = [[10, 20, 30, 40, kind, 0, 0, 9, 9, 1, 1, 1, 1, 3, -1, -1, -1, -1] for kind in (1, 2, 3)]
    test = records(("name", "label"), ("test_00000001.jpg", np.array(kinds, dtype=np.int16)))
    for split, variables in (("Train", {"label_train": train}), ("Test", {"LabelTest": test})):
        folder = tmp_path / f"MAFA-Label-{split}"
        folder.mkdir()
        scipy.io.savemat(folder / f"Label{split}All.mat", variables)
    return tmp_path


def test_mafa(mafa):
    first, second, test = matlab.mafa(mafa, ())
    assert first.faces == (Face((10, 20, 30, 40)), Face((50, 20, 30, 40)))
    assert second.faces == (Face((-3, 20, 30, 40)),) and second.where.endswith("LabelTrainAll.mat, record 2")
    assert [face.ignore for face in test.faces] == [False, False, True]
    assert [picture.split for picture in (first, second, test)] == ["train", "train", "test"]
    assert first.path == mafa / "train-images" / "images" / "train_00000001.jpg"
    assert test.path == mafa / "test-images" / "images" / "test_00000001.jpg"


def save_wiki(folder, **changes):
    fields = {
        "dob": np.array([[723671.0, 703186.0]]),
        "full_path": np.empty((1, 2), dtype=object),
        "face_location": np.empty((1, 2), dtype=object),
        "face_score": np.array([[4.3, -np.inf]]),
    }
    for place, path in enumerate(("17/10000217_1981.jpg", "48/10000548_1925.jpg")):
        fields["full_path"][0, place] = path
        fields["face_location"][0, place] = np.array([[11.0, 21, 40, 60]])
    scipy.io.savemat(folder / "wiki.mat", {"wiki": fields | changes})


def test_wiki(tmp_path):
    save_wiki(tmp_path)
    found, nothing = matlab.wiki(tmp_path, ())
    assert found.path == tmp_path / "17" / "10000217_1981.jpg"
    assert found.faces == (Face((10, 20, 30, 40)),) and nothing.faces == ()


def test_files_that_cannot_be(mafa):
    save_wiki(mafa, face_score=np.array([[1.0]]))
    with pytest.raises(ConvertError, match="wiki.mat: is not the table of WIKI"):
        list(matlab.wiki(mafa, ()))
    (file := mafa / "wiki.mat").write_bytes(file.read_bytes()[:300])
    with pytest.raises(ConvertError, match="wiki.mat: cannot be read as a MATLAB file"):
        list(matlab.wiki(mafa, ()))
    file.write_bytes(b"")
    with pytest.raises(ConvertError, match="wiki.mat: cannot be read as a MATLAB file"):
        list(matlab.wiki(mafa, ()))
    train = mafa / "MAFA-Label-Train" / "LabelTrainAll.mat"
    scipy.io.savemat(train, {"other": 1})
    with pytest.raises(ConvertError, match="holds no variable 'label_train'"):
        list(matlab.mafa(mafa, ()))
    scipy.io.savemat(train, {"label_train": records(("a", "b"), ("x", "y"))})
    with pytest.raises(ConvertError, match="LabelTrainAll.mat, record 1: is not a name with labels"):
        list(matlab.mafa(mafa, ()))


def test_a_face_is_on_the_easiest_of_its_levels(tmp_path, save_wider_level):
    assert matlab.wider_levels(tmp_path) == {}
    for level, counted in {"easy": [2], "medium": [2, 3], "hard": [1, 2, 3]}.items():
        save_wider_level(tmp_path, level, counted)
    name = "1--Handshaking/1_Handshaking_Handshaking_1_35.jpg"
    assert matlab.wider_levels(tmp_path) == {(name, 2): "easy", (name, 3): "medium", (name, 1): "hard"}


def test_levels_that_are_not_complete_are_refused(tmp_path, save_wider_level):
    save_wider_level(tmp_path, "easy", [1])
    with pytest.raises(ConvertError, match="holds no wider_medium_val.mat"):
        matlab.wider_levels(tmp_path)
    scipy.io.savemat(tmp_path / "wider_easy_val.mat", {"event_list": [1, 2], "file_list": [3, 4], "gt_list": [5]})
    with pytest.raises(ConvertError, match="wider_easy_val.mat: is not a list of WIDER FACE"):
        matlab.wider_levels(tmp_path)
