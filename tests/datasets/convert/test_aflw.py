from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from nni_hyperfd.datasets.convert.aflw import aflw
from nni_hyperfd.datasets.convert.record import ConvertError, Face

NAMES = ("LeftEyeLeftCorner", "LeftEyeCenter", "RightEyeCenter", "NoseCenter", "MouthLeftCorner", "MouthRightCorner")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "data" / "flickr" / "0").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "data" / "aflw.sqlite")) as database, database:
        database.executescript("""
            CREATE TABLE FaceImages (image_id, db_id, file_id, filepath, bw, width, height);
            CREATE TABLE Faces (face_id, file_id, db_id);
            CREATE TABLE FaceRect (face_id, x, y, w, h, annot_type_id);
            CREATE TABLE FeatureCoordTypes (feature_id, descr, code, x, y, z);
            CREATE TABLE FeatureCoords (face_id, feature_id, x, y, annot_type_id);
            INSERT INTO FaceImages VALUES (1, 'flickr', 'a.jpg', '0/a.jpg', 0, 100, 80);
            INSERT INTO FaceImages VALUES (2, 'flickr', 'b.jpg', '0/b.jpg', 0, 100, 80);
            INSERT INTO Faces VALUES (39341, 'a.jpg', 'flickr'), (39342, 'a.jpg', 'flickr'), (39343, 'b.jpg', 'flickr');
            INSERT INTO FaceRect VALUES (39341, 10, 20, 30, 30, 1), (39342, -4, 5, 20, 20, 1);
        """)
        for number, name in enumerate(NAMES, start=7):
            database.execute("INSERT INTO FeatureCoordTypes VALUES (?, ?, '', 0, 0, 0)", (number, name))
            if name != "RightEyeCenter":
                database.execute("INSERT INTO FeatureCoords VALUES (39341, ?, ?, 30.5, 1)", (number, number))
    return tmp_path


def test_aflw(source):
    (picture,) = aflw(source, ())
    points = ((8, 30.5), None, (10, 30.5), (11, 30.5), (12, 30.5))
    assert picture.faces == (Face((10, 20, 30, 30), points), Face((-4, 5, 20, 20)))
    assert picture.path == source / "data" / "flickr" / "0" / "a.jpg"
    assert picture.where.endswith("aflw.sqlite, image 0/a.jpg")


@pytest.mark.parametrize("content", [b"", b"no database", None])
def test_a_database_that_cannot_be(source, content):
    file = source / "data" / "aflw.sqlite"
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ConvertError, match="aflw.sqlite: cannot be read as AFLW's database"):
        list(aflw(source, ()))


def test_the_images_must_be_there(source):
    (source / "data" / "flickr").rename(source / "data" / "pictures")
    with pytest.raises(ConvertError, match="holds 0 folders named flickr"):
        list(aflw(source, ()))
