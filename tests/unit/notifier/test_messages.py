import pytest

from notifier.messages import MAX_DETAILS, Mail, Message, write_message


def message(name: str | None = "train", details: str | None = "epoch 1\nepoch 2") -> Message:
    mail = Mail(
        id=1, owner="me", attempts=1, doubts=0, priority=0, correlation_id=None, last_error=None,
        job_id=7, kind="finished", recipient="ada@example.org", custom_id="1", alone=False,
    )  # fmt: skip
    return write_message(mail, name, details)


def test_the_subject_names_job_id_and_status() -> None:
    assert message().subject == "Job train (id=7) finished"


def test_the_subject_holds_the_name_as_it_is() -> None:
    assert message(name=" a  b ").subject == "Job  a  b  (id=7) finished"


def test_the_text_holds_name_id_status_and_details() -> None:
    assert message().text == (
        "Name: train\nID: 7\nStatus: finished\n\nRun-time details:\nepoch 1\nepoch 2\n"
    )


@pytest.mark.parametrize("name", ["a\r\nBcc: eve@example.org", "a\x00b", "a\u2028b"])
def test_a_name_cannot_break_out_of_the_subject(name: str) -> None:
    assert message(name=name).subject.splitlines() == [message(name=name).subject]


def test_an_adopted_job_without_a_name_gets_a_mail_as_well() -> None:
    assert message(name=None).subject == "Job (id=7) finished"


def test_html_is_escaped() -> None:
    html = message(name="<img onerror=x>", details="a < b & c").html
    assert "<img" not in html
    assert "a &lt; b &amp; c" in html


def test_of_long_details_the_end_is_kept() -> None:
    text = message(details="x" * MAX_DETAILS + "the end").text
    assert text.endswith("xthe end\n")
    assert len(text) < MAX_DETAILS + 200


def test_details_of_just_the_longest_length_are_shown_whole() -> None:
    assert "[…]" not in message(details="x" * MAX_DETAILS).text
    assert "[…]" in message(details="x" * (MAX_DETAILS + 1)).text


def test_missing_details_are_shown_as_none() -> None:
    assert "Run-time details:\nnone\n" in message(details=None).text
