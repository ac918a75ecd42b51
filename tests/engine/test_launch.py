"""How settings become vLLM's command line and environment."""

from __future__ import annotations

import sys
from pathlib import Path

from services.engine.capacity import LoraRoom
from services.engine.launch import plan_launch, socket_path
from services.engine.settings import EngineSettings


def launch(room=None, **settings):
    chosen = EngineSettings(**{"model_dir": Path("/models/base"), **settings})
    return plan_launch(chosen, room=room, cores=[0, 1, 4, 5], parent=77, inherited={"PATH": "/bin", "PYTHONPATH": "/theirs"})


def value(argv, flag):
    return argv[argv.index(flag) + 1]


def test_vllm_is_started_by_the_tether_which_is_told_its_parent():
    assert launch().argv[:4] == [sys.executable, "-m", "services.engine.tether", "77"]


def test_another_interpreter_can_be_named():
    assert launch(python="/opt/vllm/bin/python").argv[0] == "/opt/vllm/bin/python"


def test_vllm_listens_on_a_unix_socket_unless_told_otherwise():
    argv = launch(vllm_url="unix:/run/engine.sock").argv
    assert value(argv, "--uds") == "/run/engine.sock"
    assert "--port" not in argv


def test_vllm_can_listen_on_a_port():
    argv = launch(vllm_url="http://0.0.0.0:8000").argv
    assert (value(argv, "--host"), value(argv, "--port")) == ("0.0.0.0", "8000")
    assert "--uds" not in argv


def test_a_relative_socket_is_made_absolute():
    assert (
        socket_path(EngineSettings(model_dir=Path("m"), vllm_url="unix:.run/engine.sock")) == Path(".run/engine.sock").absolute()
    )


def test_vllm_sends_its_spans_where_the_service_does():
    planned = launch(otlp_endpoint="http://collector:4318/")
    assert value(planned.argv, "--otlp-traces-endpoint") == "http://collector:4318/v1/traces"
    assert planned.env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert "--otlp-traces-endpoint" not in launch().argv


def test_requests_in_flight_get_as_long_as_the_service_itself_has():
    assert value(launch(drain_timeout_s=12.5).argv, "--shutdown-timeout") == "13"


def test_a_cpu_gets_bfloat16_small_blocks_no_compiler_and_every_core():
    planned = launch(kv_cache_gib=3)
    assert value(planned.argv, "--dtype") == "bfloat16"
    assert value(planned.argv, "--block-size") == "32"
    assert "--enforce-eager" in planned.argv
    wanted = {"VLLM_CPU_KVCACHE_SPACE": "3", "VLLM_CPU_OMP_THREADS_BIND": "0,1,4,5", "OMP_NUM_THREADS": "4"}
    assert wanted.items() <= planned.env.items()


def test_threads_can_be_fewer_than_cores_but_not_more():
    assert launch(threads=2).env["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"
    assert launch(threads=2).env["OMP_NUM_THREADS"] == "2"
    assert launch(threads=99).env["OMP_NUM_THREADS"] == "4"


def test_a_gpu_gets_none_of_what_is_for_cpus():
    planned = launch(device="gpu")
    assert not {"--enforce-eager", "--block-size", "--dtype"} & set(planned.argv)
    assert not {"VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS"} & planned.env.keys()


def test_lora_is_off_without_a_store_and_has_the_room_that_the_store_needs():
    assert "--enable-lora" not in launch().argv
    argv = launch(room=LoraRoom(slots=17, copies=36, rank=64)).argv
    assert "--enable-lora" in argv
    assert (value(argv, "--max-loras"), value(argv, "--max-cpu-loras"), value(argv, "--max-lora-rank")) == ("17", "36", "64")


def test_extra_flags_come_last_so_that_they_win():
    assert launch(extra_args="--tensor-parallel-size 2 --max-model-len 4096").argv[-4:] == [
        "--tensor-parallel-size", "2", "--max-model-len", "4096",
    ]  # fmt: skip


def test_nothing_is_fetched_or_reported_and_every_child_is_spawned():
    env = launch().env
    assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"], env["VLLM_WORKER_MULTIPROC_METHOD"]) == ("1", "1", "spawn")


def test_the_environment_is_the_inherited_one_with_our_sources_in_front():
    env = launch().env
    assert env["PATH"] == "/bin"
    ours, plugin, theirs = env["PYTHONPATH"].split(":")
    assert list(Path(plugin).glob("*.dist-info/entry_points.txt"))
    assert (Path(ours) / "services" / "engine" / "tether.py").is_file()
    assert theirs == "/theirs"


def test_every_vllm_has_a_closed_door_and_our_plugin_alone():
    planned = launch()
    assert value(planned.argv, "--middleware") == "services.engine.vllm_plugin.edge.ClosedRoutes"
    assert planned.env["VLLM_PLUGINS"] == "agentflux"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in planned.env


def test_with_a_store_names_are_resolved_in_it():
    room = LoraRoom(slots=8, copies=16, rank=32)
    env = launch(room, adapter_store="adapters").env
    assert env["AGENTFLUX_ENGINE_PLUGIN_STORE"] == str(Path("adapters").absolute())
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert env["AGENTFLUX_ENGINE_PLUGIN_MAX_RANK"] == "32"
    assert env["AGENTFLUX_ENGINE_PLUGIN_ACTIVATED"] == "0"
    assert launch(room, adapter_store="adapters", activated_lora=True).env["AGENTFLUX_ENGINE_PLUGIN_ACTIVATED"] == "1"


def test_words_are_grounded_but_not_where_vllm_drafts_since_it_refuses_to_start_with_both():
    assert value(launch().argv, "--logits-processors") == "services.engine.vllm_plugin.grounding:Grounding"
    for drafting in ('--speculative-config \'{"method": "ngram"}\'', "-sc '{}'", "--spec-tokens 3"):
        assert "--logits-processors" not in launch(extra_args=drafting).argv
