"""Memory and time on footage of 1, 2, 5 and 10 times the length: `python -m benchmarks.scaling`.

The real footage is remuxed end to end into one file, packet by packet, with timestamps that go on, so that
nothing but the length differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks.reports import table
from benchmarks.runs import EXAMPLE, Measured, data, measure, report

TIMES = (1, 2, 5, 10)


def repeated(source: Path, target: Path, times: int) -> Path:
    """Write a video several times into one file."""
    import av

    with av.open(str(target), "w") as made:
        stream = None
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as given:
                read = given.streams.video[0]
                stream = stream or made.add_stream_from_template(read)
                end = shift
                for packet in given.demux(read):
                    if not packet.size:
                        continue
                    end = max(end, shift + packet.pts + packet.duration)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    made.mux(packet)
            shift = end
    return target


def run(repetitions: int) -> dict[int, list[Measured]]:
    """Annotate each length, a few times each, alternating."""
    results: dict[int, list[Measured]] = {times: [] for times in TIMES}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = data() / "line" / "bottle-detection.mp4"
        videos = {times: repeated(source, place / f"{times}.mp4", times) for times in TIMES}
        for number in range(repetitions):
            for times, video in videos.items():
                workspace = place / f"w{times}-{number}"
                words = ("annotate", EXAMPLE, "--source", video, "--json", "-w", workspace)
                found = measure(*words)
                results[times].append(found)
                shutil.rmtree(workspace)
                print(
                    f"{times:>2} x: {found.document['counts']['frames']} frames, {found.wall_s:.1f} s wall, "
                    f"{found.cpu_s:.1f} s CPU, {found.peak_mib:.0f} MiB",
                    flush=True,
                )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    repetitions = parser.parse_args().repetitions
    results = run(repetitions)
    rows = []
    for times, runs in results.items():
        frames = runs[0].document["counts"]["frames"]
        rows.append(
            {
                "times": times,
                "frames": frames,
                "regions": runs[0].document["counts"]["regions"],
                "wall_s": statistics.median(found.wall_s for found in runs),
                "cpu_s": statistics.median(found.cpu_s for found in runs),
                "peak_mib": max(found.peak_mib for found in runs),
                "least_peak_mib": min(found.peak_mib for found in runs),
                "wall_ms_per_frame": statistics.median(found.wall_s for found in runs) / frames * 1000,
                "cpu_ms_per_frame": statistics.median(found.cpu_s for found in runs) / frames * 1000,
            }
        )
    first, last = rows[0], rows[-1]
    # Start-up costs the same for any length: what a further frame costs is the slope.
    slopes = [(b["cpu_s"] - a["cpu_s"]) / (b["frames"] - a["frames"]) * 1000 for a, b in pairwise(rows)]
    figures = {
        "rows": rows,
        "memory_ratio": last["peak_mib"] / first["least_peak_mib"],
        "wall_per_frame_ratio": last["wall_ms_per_frame"] / first["wall_ms_per_frame"],
        "cpu_per_frame_ratio": last["cpu_ms_per_frame"] / first["cpu_ms_per_frame"],
        "cpu_ms_per_further_frame": slopes,
        "load_average": os.getloadavg()[2],
    }
    lengths = table(
        ["times", "frames", "regions", "wall, s", "wall ms a frame", "CPU ms a frame", "peak memory, MiB"],
        [
            [
                row["times"],
                f"{row['frames']:,}",
                f"{row['regions']:,}",
                f"{row['wall_s']:.1f}",
                f"{row['wall_ms_per_frame']:.2f}",
                f"{row['cpu_ms_per_frame']:.2f}",
                f"{row['peak_mib']:.0f}",
            ]
            for row in rows
        ],
    )
    further = ", ".join(f"{slope:.2f}" for slope in slopes)
    page = f"""# Scaling with the length of the footage

The bottle line's real footage, once and repeated end to end in one file; `labelmill annotate` in
a process of its own, in a fresh workspace. Runs a length: {repetitions}, alternating; medians, of memory
the largest. Load of the machine meanwhile, others' work included: {figures["load_average"]:.1f} (15 minutes).

{lengths}

- Peak memory at 10 times: **{figures["memory_ratio"]:.3f}** of that at once; aim at most 1.15.
- Wall time a frame at 10 times: **{figures["wall_per_frame_ratio"]:.2f}** of that at once; CPU time:
  **{figures["cpu_per_frame_ratio"]:.2f}**. Start-up is included, which the longer footage spreads thinner.
- CPU time of a further frame, from one length to the next: {further} ms; a straight line where these
  are alike."""
    report("scaling", page, figures)


if __name__ == "__main__":
    main()
