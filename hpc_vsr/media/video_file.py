"""Opens video files with PyAV, and lists their packets without decoding."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av

from hpc_vsr.system.errors import InputError

# For tags that are not UTF-8. PyAV 19 passes on their bytes by itself (PEP 383) and no longer has this option.
READ_TAGS = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
# A playlist (HLS, DASH, concat) named like a video could lead to other files or addresses: no reader for it is allowed.
ONLY_THIS_FILE = {**READ_TAGS, "options": {"protocol_whitelist": "file", "format_whitelist": (
    "asf,avi,av1,dv,flv,gif,h261,h263,h264,hevc,ivf,m4v,matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,"
    "mpegtsraw,mpegvideo,mxf,nsv,nut,obu,ogg,rawvideo,rm,swf,vc1,vc1test,vob,wtv,yuv4mpegpipe,apng,png_pipe")}}


def open_container(path: Path):
    """Open a file that has a video stream for reading."""
    try:
        container = av.open(str(path), **ONLY_THIS_FILE)
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: cannot be read as a video ({error.strerror}); "
                         "it may be truncated or of another type") from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: has no video stream; give a video file")
    return container


class Index(NamedTuple):
    """Time stamps of all frames, ascending; {time stamp: (position, size)} of key packets; length of the last frame."""

    timestamps: list[int]
    keys: dict[int, tuple[int, int]]
    last_duration: int


def index_packets(path: Path) -> Index:
    """Read the time stamps of all packets without decoding, and check that the file is whole."""
    timestamps, keys, end, num_discarded = [], {}, (0, 0), 0
    with open_container(path) as container:
        stream = container.streams.video[0]
        declared = stream.frames
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                if packet.is_discard:  # left out by an edit list
                    num_discarded += 1
                    continue
                if packet.is_corrupt:
                    raise InputError(f"{path}: frame {len(timestamps)} is truncated; copy the file again")
                timestamps.append(packet.pts)
                end = max(end, (packet.pts or 0, packet.duration or 0))
                if packet.is_keyframe and packet.pts is not None:
                    keys[packet.pts] = (packet.pos, packet.size)
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: cannot be read beyond frame {len(timestamps)} ({error.strerror}); "
                             "the file is damaged, copy it again") from None
    if not timestamps:
        raise InputError(f"{path}: has no video frames")
    if len(timestamps) + num_discarded < declared:
        raise InputError(f"{path}: has {len(timestamps)} of the {declared} frames that it announces; "
                         "the file is truncated, copy it again")
    if None in timestamps or len(set(timestamps)) != len(timestamps):
        raise InputError(f"{path}: its frames have no unique time stamps; rewrite it with "
                         f"'ffmpeg -fflags +genpts -i {path.name} -c copy {path.stem}.mkv'")
    timestamps.sort()
    before_end = timestamps[-1] - timestamps[-2] if len(timestamps) > 1 else 1
    return Index(timestamps, keys, end[1] or before_end)
