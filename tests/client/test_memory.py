"""How many images a pass holds: by what memory is left, whoever limits it."""

import pytest
import torch

from client.training import gradients, memory
from client.training.memory import Room
from shared import networks
from shared.errors import Refused

CPU = torch.device("cpu")


def test_room_is_for_one_image_at_least_and_for_fewer_the_larger_they_are():
    assert Room(CPU, 2**50).images == 1
    assert Room(CPU, 1).images == Room(CPU, 0).images == 1024
    few, many = Room(CPU, 2**24).images, Room(CPU, 2**22).images
    assert 1 <= few < many <= 2**30 // 2**22


def test_room_halves_down_to_one_image():
    room = Room(CPU, 1)
    room.shrink(9)
    assert room.images == 4
    room.shrink(2)
    assert room.images == 1
    with pytest.raises(Refused, match="single image"):
        room.shrink(1)


def test_a_machine_is_asked_for_what_it_has_left(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       24612345 kB\nMemFree:   100 kB\nMemAvailable:    2048 kB\n")
    assert memory.left_of_machine(file) == 2**21
    assert memory.left_of_machine(tmp_path / "none") == 2**32
    assert memory.available(CPU) > 2**20


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_limits_of_control_groups_count_those_above_included(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/slice/service\n")
    statistics = "anon 5\ninactive_file 100\n"
    group(tmp_path / "slice", memory__max="1000\n", memory__current="400\n", memory__stat=statistics)
    group(tmp_path / "slice" / "service", memory__max="max\n", memory__current="50\n", memory__stat=statistics)
    assert memory.left_of_groups(tmp_path, own) == [700]
    own.write_text("4:memory:/service\n1:cpu:/\n")
    group(
        tmp_path / "memory" / "service",
        memory__limit_in_bytes="900",
        memory__usage_in_bytes="1500",
        memory__stat="total_inactive_file 200\n",
    )
    assert memory.left_of_groups(tmp_path, own) == [0]
    assert memory.left_of_groups(tmp_path, tmp_path / "none") == []


def test_pytorchs_own_complaint_on_the_processor_is_known():
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**50)
    assert memory.ran_out(told.value)
    assert not memory.ran_out(ValueError("can't allocate memory"))


def test_what_an_image_takes_grows_with_the_image_and_counts_gradients_of_parameters(job):
    def of(size, channels):
        varied = job.varied(images={"size": size}, network={"channels": channels})
        return gradients.find_out(networks.build(varied), varied).bytes_an_image

    assert 3 < of([64, 64], [4, 8]) / of([32, 32], [4, 8]) < 5
    assert of([16, 16], [4, 512]) > 4 * 9 * 4 * 512
