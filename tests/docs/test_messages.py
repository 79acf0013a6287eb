"""The messages that `python -m tests.support.messages` prints."""

from tests.support.messages import messages


def test_the_messages_of_errors_helpers_findings_and_commands_are_all_printed() -> None:
    every = list(messages())
    assert len(every) > 600
    shown_by = {message.shown_by for message in every}
    assert {"InvalidError", "DamagedError", "Finding", "print_line", "warning", "text"} <= shown_by
    assert not [message for message in every if "%s" in message.text or "1000" in message.text.split(". ")[-1:]]
