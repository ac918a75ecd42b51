"""How vLLM's log lines are read."""

from services.engine.loglines import LogLine, parse_log_line


def test_a_line_of_vllm_gives_its_process_level_place_and_message():
    line = "(EngineCore pid=7557) WARNING 11-21 04:49:01 [vllm.py:725] Model Runner V2 requires Triton\n"
    assert parse_log_line(line) == LogLine("warning", "Model Runner V2 requires Triton", "EngineCore", "vllm.py:725")


def test_a_line_of_a_traceback_keeps_its_level_and_its_indentation():
    line = "(APIServer pid=7513) ERROR 11-21 04:49:40 [async_llm.py:906]     outputs = await core.get()"
    assert parse_log_line(line) == LogLine("error", "    outputs = await core.get()", "APIServer", "async_llm.py:906")


def test_an_empty_line_of_vllm_has_an_empty_message():
    assert parse_log_line("(APIServer pid=7513) INFO 11-21 04:47:37 [api_utils.py:347] \n").message == ""


def test_uvicorn_lines_have_a_level_too():
    assert parse_log_line("INFO:     Application startup complete.") == LogLine("info", "Application startup complete.")


def test_any_other_line_is_a_message_of_level_info():
    line = "Loading safetensors checkpoint shards: 100% Completed"
    assert parse_log_line(line) == LogLine("info", line)


def test_a_message_that_merely_contains_a_level_is_not_taken_for_one():
    assert parse_log_line("no ERROR here").level == "info"
