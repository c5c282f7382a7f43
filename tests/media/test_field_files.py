"""Files of fields as other programs write them: groups, MATLAB, filters, and what they have lost."""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
import struct

import h5py
import netCDF4
import numpy as np
import pytest
import xarray
import zarr

from hpc_vsr.media.field_sink import write_field
from hpc_vsr.media.field_source import list_variables, open_field
from hpc_vsr.system.errors import InputError

STEPS, HEIGHT, WIDTH = 6, 8, 10
FIELD = np.arange(STEPS * HEIGHT * WIDTH, dtype=np.float32).reshape(STEPS, HEIGHT, WIDTH)


def frames(source) -> np.ndarray:
    return np.stack([frame[0] for frame, _ in source.read(0, source.num_frames)])


def repeated(number: int) -> np.ndarray:
    """Return a frame as an upscaling that repeats each value makes it."""
    return FIELD[number].repeat(2, 0).repeat(2, 1)


def write_zarr(path, group=None, values=FIELD, version=3, **attributes):
    root = zarr.open_group(str(path), mode="a", zarr_format=version)
    place = root.require_group(group) if group else root
    more = {"dimension_names": ["time", "y", "x"]} if version == 3 else {}
    array = place.create_array("v", shape=values.shape, dtype="f4", chunks=(1, HEIGHT, WIDTH), fill_value=0.0, **more)
    array[:] = values
    array.attrs.update(attributes if version == 3 else {"_ARRAY_DIMENSIONS": ["time", "y", "x"], **attributes})
    return path


def test_a_variable_of_a_group_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["tasks/vorticity"], file["scales/sim_time"], file["more/deep/w"] = FIELD, np.arange(STEPS), -FIELD
    assert list_variables(tmp_path / "f.h5") == ["more/deep/w", "tasks/vorticity"]
    for name in ("vorticity", "tasks/w", "task/vorticity"):
        with pytest.raises(InputError, match=rf"has no variable '{name}'; it has: more/deep/w\(.*tasks/vorticity\("):
            open_field(tmp_path / "f.h5", name)
    source = open_field(tmp_path / "f.h5", "/tasks/vorticity")
    assert source.channels == ("vorticity",) and source.description["variable"] == "tasks/vorticity"
    np.testing.assert_array_equal(frames(source), FIELD)
    np.testing.assert_array_equal(frames(open_field(tmp_path / "f.h5", "more/deep/w")), -FIELD)


def test_a_variable_of_a_group_has_the_coordinates_around_it(tmp_path):
    """Its dimensions are those of the whole file, with their gap in time; the enlarged field has them too."""
    with netCDF4.Dataset(tmp_path / "f.nc", "w") as file:
        for name, values in (("time", [0, 1, 2, 5, 6, 7]), ("lat", range(HEIGHT)), ("lon", range(WIDTH))):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = np.array(values)
        file["time"].units = "hours since 2000-01-01"
        file.createGroup("a/b").createVariable("v", "f4", ("time", "lat", "lon"))[:] = FIELD
    source = open_field(tmp_path / "f.nc", "a/b/v")
    assert source.description["coordinates"][0]["last"] == 7
    assert source.facts.lines[0] == "time: 6 steps of 1 hour from 2000-01-01T00:00, 1 gap"
    assert source.facts.breaks == (3,)

    write_field(tmp_path / "out.nc", source, range(STEPS), 2, repeated, "test", "mark")
    with xarray.open_dataset(tmp_path / "out.nc", decode_times=False) as after:
        np.testing.assert_array_equal(after["v"], FIELD.repeat(2, 1).repeat(2, 2))
        np.testing.assert_array_equal(after["time"], [0, 1, 2, 5, 6, 7])
        np.testing.assert_allclose(after["lat"], np.arange(16) / 2 - 0.25)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_variable_of_a_group_of_zarr(tmp_path, version):
    write_zarr(tmp_path / "f.zarr", "run/fields", FIELD + 1, version)
    assert list_variables(tmp_path / "f.zarr") == ["run/fields/v"]
    with pytest.raises(InputError, match=r"no variable 'v'; it has: run/fields/v\('time', 'y', 'x'\)"):
        open_field(tmp_path / "f.zarr", "v")
    np.testing.assert_array_equal(frames(open_field(tmp_path / "f.zarr", "run/fields/v")), FIELD + 1)


def test_axes_that_lie_in_another_group(tmp_path):
    """As Dedalus attaches them; neither netCDF4 nor h5netcdf opens such a group. Time is known by its label."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        scales = {"t": ("sim_time", [0, 0.1, 0.2, 0.3, 0.4, 0.5]), "x": ("x_hash", np.arange(8) / 8),
                  "z": ("z_hash", np.arange(10.0))}
        file["tasks/u"], file["tasks/last"] = FIELD, FIELD.transpose(1, 2, 0)
        for name, values in scales.values():
            file[f"scales/{name}"] = np.array(values)
            file[f"scales/{name}"].make_scale(name)
        for variable, labels in (("u", "txz"), ("last", "xzt")):
            for dim, label in zip(file[f"tasks/{variable}"].dims, labels, strict=True):
                dim.label = label
                dim.attach_scale(file[f"scales/{scales[label][0]}"])
    for variable in ("tasks/u", "tasks/last"):
        source = open_field(tmp_path / "f.h5", variable)
        assert source.description["dimensions"] == ["t", "x", "z"]
        x = {"name": "x", "units": "", "size": 8, "first": 0.0, "last": 0.875}
        assert source.description["coordinates"][0] == x
        np.testing.assert_array_equal(frames(source), FIELD)
        assert source.facts.lines[0] == "time: 6 steps of 0.1 from 0.0 by t, which has no unit"


def test_labels_of_plain_hdf5_tell_where_time_is(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v"], file["w"] = FIELD.transpose(1, 2, 0), FIELD
        for name, labels in (("v", ("y", "x", "time")), ("w", ("time", "y", "x"))):
            for dim, label in zip(file[name].dims, labels, strict=True):
                dim.label = label
    for name in "vw":
        np.testing.assert_array_equal(frames(open_field(tmp_path / "f.h5", name)), FIELD)


def test_a_matlab_file(tmp_path):
    """MATLAB's size is the shape of HDF5 backwards, so its last dimension, usually time, is the first in the file."""
    with h5py.File(tmp_path / "f.mat", "w", userblock_size=512) as file:
        file["H"], file["#refs#/a"] = FIELD.astype("f8"), np.ones((3, 4, 5))
    with (tmp_path / "f.mat").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    source = open_field(tmp_path / "f.mat")
    np.testing.assert_array_equal(frames(source), FIELD)
    assert source.facts.lines[1] == ("MATLAB: size(H) is 10 x 8 x 6; the last is time, the one before it the rows and "
                                     "the first the columns of a frame")
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(128))
    with pytest.raises(InputError, match=r"is a MATLAB file before version 7\.3; write it with save\(.*'-v7\.3'\)"):
        open_field(tmp_path / "old.mat", "H")


def test_a_filter_that_only_h5py_knows(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("v", data=FIELD, compression="lzf", chunks=(1, HEIGHT, WIDTH))
    np.testing.assert_array_equal(frames(open_field(tmp_path / "f.h5", "v")), FIELD)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", np.longdouble])
@pytest.mark.parametrize("where", ["beside", "single", "link"])
def test_a_float_that_netcdf_does_not_know_is_read_and_ends_no_process(tmp_path, dtype, where):
    other = (FIELD / 4).astype(dtype)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = other
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v"] = FIELD
        if where == "link":
            file["w"], file["lost"] = h5py.ExternalLink("other.h5", "/w"), h5py.ExternalLink("none.h5", "/w")
            file["again"] = h5py.SoftLink("/")
        else:
            file["w"] = other if where == "beside" else other[0, 0, 0]
    np.testing.assert_array_equal(frames(open_field(tmp_path / "f.h5", "v")), FIELD)
    if where != "single":
        source = open_field(tmp_path / "f.h5", "w")
        np.testing.assert_array_equal(frames(source), FIELD / 4)  # exactly: there are few digits
        write_field(tmp_path / "out.nc", source, range(STEPS), 2, repeated, "test", "mark")
        with xarray.open_dataset(tmp_path / "out.nc") as after:
            np.testing.assert_array_equal(after["w"], FIELD.repeat(2, 1).repeat(2, 2))


@pytest.mark.filterwarnings("ignore:.*float16:FutureWarning")  # of pandas
def test_what_is_in_half_precision_is_kept_beside_an_enlarged_field(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, size in (("time", STEPS), ("y", HEIGHT), ("x", WIDTH)):
            file[name] = np.arange(size).astype("f2" if name != "time" else "f8")
            file[name].make_scale(name)
        file["v"], file["mask"], file["weight"] = FIELD, (FIELD[0] > 99).astype("f2"), np.arange(STEPS).astype("f2")
        for name, axes in (("v", ("time", "y", "x")), ("mask", ("y", "x")), ("weight", ("time",))):
            for dim, axis in zip(file[name].dims, axes, strict=True):
                dim.attach_scale(file[axis])
    write_field(tmp_path / "out.nc", open_field(tmp_path / "f.h5", "v"), range(STEPS), 2, repeated, "test", "mark")
    with xarray.open_dataset(tmp_path / "out.nc") as after:
        np.testing.assert_allclose(after["x"], np.arange(2 * WIDTH) / 2 - 0.25)
        np.testing.assert_array_equal(after["mask"], (FIELD[0] > 99).repeat(2, 0).repeat(2, 1))
        np.testing.assert_array_equal(after["weight"], np.arange(STEPS))


@pytest.mark.parametrize(("name", "start", "words"), [
    ("a.grib", b"GRIB\0\0\0\1", "is a GRIB file, .*'cdo -f nc4 copy a.grib a.nc' or 'grib_to_netcdf -o a.nc a.grib'"),
    ("a.hdf", b"\x0e\x03\x13\x01", "is an HDF4 file, .*'h4tonccf_nc4 a.hdf a.nc'"),
    ("a.npy", b"\x93NUMPY\1\0", r"is a NumPy array, .*DataArray\(numpy.load\('a.npy'\), dims=.*to_netcdf\('a.nc'\)"),
    ("a.npz", b"PK\3\4", "is a ZIP archive, .* unpack it"), ("a.vtk", b"# vtk DataFile Version 3.0\n", "is a VTK file"),
    ("a.vti", b'<?xml version="1.0"?>\n<VTKFile type="ImageData">', "is a VTK file, .*write it as NetCDF"),
    ("a.nc.gz", b"\x1f\x8b\x08", "is compressed by gzip, .*'gunzip a.nc.gz'"),
    ("a.tif", b"II*\0", "is a TIFF file, .* give it by --frames"),
    ("a{0}.txt", b"t u v p\n", r"cannot be read as NetCDF, HDF5 or Zarr \(it begins with b't u v p\\n', as none")])
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, name, start, words, recwarn):
    (tmp_path / name).write_bytes(start + bytes(300))
    for variable in ("v", None):
        with pytest.raises(InputError, match=words) as refusal:
            open_field(tmp_path / name, variable)
        assert "\n" not in str(refusal.value) and "installed IO backends" not in str(refusal.value)
    assert not list(recwarn)


def test_an_array_without_a_shape_hides_no_other(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v"], file["nothing"] = FIELD, h5py.Empty("f4")
    np.testing.assert_array_equal(frames(open_field(tmp_path / "f.h5", "v")), FIELD)


@pytest.mark.parametrize("number, name", [(32008, "bitshuffle"), (32013, "ZFP"), (31999, "number 31999")])
def test_a_filter_that_nobody_knows_is_named(tmp_path, number, name):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, HEIGHT, WIDTH))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(FIELD.shape)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"v", h5py.h5t.NATIVE_FLOAT, space, properties))
        for step in range(STEPS):
            dataset.id.write_direct_chunk((step, 0, 0), FIELD[step].tobytes())
    with pytest.raises(InputError, match=f"compressed with the filter {name}, which is not installed here") as refusal:
        open_field(tmp_path / "f.h5", "v")
    assert "damaged" not in str(refusal.value)


@pytest.fixture
def joined(tmp_path):
    """A virtual data set of a part for each step."""
    layout = h5py.VirtualLayout(FIELD.shape, "f4")
    for step in range(STEPS):
        with h5py.File(tmp_path / f"part{step}.h5", "w") as file:
            file["v"] = FIELD[step]
        layout[step] = h5py.VirtualSource(f"part{step}.h5", "v", shape=FIELD.shape[1:])
    with h5py.File(tmp_path / "joined.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("v", layout)
    return tmp_path / "joined.h5"


def test_a_virtual_data_set_without_a_part_is_refused(joined, monkeypatch):
    np.testing.assert_array_equal(frames(open_field(joined, "v")), FIELD)
    moved = joined.parent / "elsewhere" / "part3.h5"
    moved.parent.mkdir()
    (joined.parent / "part3.h5").rename(moved)
    with pytest.raises(InputError, match=r"joined\.h5: v is made of 6 other files, and part3\.h5 is not there"):
        open_field(joined, "v")
    moved.rename(joined.parent / "part3.h5")
    (joined.parent / "part4.h5").write_bytes((joined.parent / "part4.h5").read_bytes()[:700])
    with pytest.raises(InputError, match=r"part4\.h5 has no v that can be read"):
        open_field(joined, "v")


def test_a_virtual_data_set_with_a_hole_is_told(tmp_path, joined):
    layout = h5py.VirtualLayout(FIELD.shape, "f4")
    for step in range(1, STEPS):
        layout[step] = h5py.VirtualSource(f"part{step}.h5", "v", shape=FIELD.shape[1:])
    with h5py.File(tmp_path / "hole.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("v", layout)
    assert "80 of 480 values of v were never written or are lost, and are read as 0.0" in open_field(
        tmp_path / "hole.h5", "v").facts.warnings[0]


def test_values_in_a_file_that_is_gone_are_refused(tmp_path):
    FIELD.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("v", FIELD.shape, "f4", external=[("raw.bin", 0, FIELD.nbytes)])
        file["link"] = h5py.ExternalLink("other.h5", "/w")
    (tmp_path / "raw.bin").unlink()
    with pytest.raises(InputError, match=r"v is made of 1 other file, and raw\.bin is not there"):
        open_field(tmp_path / "f.h5", "v")
    with pytest.raises(InputError, match=r"link is a link to /w in other\.h5, which is not there"):
        open_field(tmp_path / "f.h5", "link")


@pytest.mark.parametrize("chunks, words", [((1, HEIGHT, WIDTH), "2 of 6 chunks"), (None, "480 of 480 values")])
def test_values_that_were_never_written_are_told(tmp_path, chunks, words):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, attributes in (("v", {}), ("declared", {"_FillValue": np.float32(0)})):
            dataset = file.create_dataset(name, FIELD.shape, "f4", chunks=chunks)
            dataset.attrs.update(attributes)
            if chunks:
                dataset[:4] = FIELD[:4] + 1
    assert f"{words} of v were never written" in open_field(tmp_path / "f.h5", "v").facts.warnings[0]
    if chunks:  # the fill value is declared missing, so what was never written is missing
        assert open_field(tmp_path / "f.h5", "declared").facts.empty == (4, 5)
    else:
        with pytest.raises(InputError, match="no valid value in any frame"):
            open_field(tmp_path / "f.h5", "declared")


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_a_zarr_store_has_lost_are_told(tmp_path, version):
    path = write_zarr(tmp_path / "f.zarr", "a", FIELD + 1, version)
    assert not open_field(path, "a/v").facts.warnings
    chunk = path / "a" / "v" / ("c/3/0/0" if version == 3 else "3.0.0")
    assert chunk.is_file()
    chunk.unlink()
    assert "1 of 6 chunks of a/v were never written or are lost, and are read as 0.0" in open_field(
        path, "a/v").facts.warnings[0]
    declared = 0.0 if version == 2 else base64.b64encode(struct.pack("<d", 0.0)).decode()  # as xarray writes it
    zarr.open_array(str(path / "a" / "v"), mode="r+").attrs["_FillValue"] = declared
    facts = open_field(path, "a/v").facts
    assert facts.empty == (3,) and not any("lost" in warning for warning in facts.warnings)


def test_pickled_objects_in_a_group_are_not_opened(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path}/pwned'",)

    array = {"zarr_format": 2, "shape": [6, 8, 10], "chunks": [6, 8, 10], "dtype": "|O", "compressor": None,
             "order": "C", "fill_value": None, "filters": [{"id": "pickle", "protocol": 5}]}
    for name, text in ((".zgroup", {"zarr_format": 2}), ("a/.zgroup", {"zarr_format": 2}), ("a/u/.zarray", array),
                       ("a/u/.zattrs", {"_ARRAY_DIMENSIONS": ["time", "y", "x"]})):
        (tmp_path / "f.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f.zarr" / name).write_text(json.dumps(text))
    (tmp_path / "f.zarr" / "a" / "u" / "0.0.0").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match=r"a/u/\.zarray: holds pickled objects"):
        open_field(tmp_path / "f.zarr", "a/u")
    assert not (tmp_path / "pwned").exists()


def test_a_folder_of_files_and_a_variable_beside_the_field(tmp_path):
    xarray.Dataset({"v": (("time", "y", "x"), FIELD)}, {"area": (("y", "x"), FIELD[1])}).to_netcdf(tmp_path / "f.nc")
    with pytest.raises(InputError, match=r"is a folder, and no Zarr store; name the files in it, such as '.*/\*\.nc'"):
        open_field(tmp_path, "v")
    source = open_field(tmp_path / "f.nc", "area")
    np.testing.assert_array_equal(frames(source), FIELD[1:2])
    assert "area has no time, but y and x: each file is one frame" in source.facts.lines
    shutil.copy(tmp_path / "f.nc", tmp_path / "g.field")  # the content tells what a file is, not its name
    np.testing.assert_array_equal(frames(open_field(tmp_path / "g.field", "v")), FIELD)
