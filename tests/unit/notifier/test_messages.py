import pytest

from notifier.messages import MAX_DETAILS, MAX_OUTPUT, Mail, Message, write_message


def message(name: str | None = "train", details: str | None = "epoch 1\nepoch 2") -> Message:
    mail = Mail(
        id=1, owner="me", attempts=1, doubts=0, priority=0, correlation_id=None, last_error=None,
        job_id=7, kind="finished", recipient="ada@example.org", custom_id="1", alone=False,
    )  # fmt: skip
    return write_message(mail, name, details)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("train", "Job train (id=7) finished"),
        (" a  b ", "Job  a  b  (id=7) finished"),
        (None, "Job (id=7) finished"),  # of an adopted job
        ("a\r\nBcc: eve@example.org", "Job a Bcc: eve@example.org (id=7) finished"),
        ("a\x00b", "Job a b (id=7) finished"),
        ("a\u2028b", "Job a b (id=7) finished"),
    ],
)
def test_the_subject_names_job_id_and_status_on_one_line(name: str | None, subject: str) -> None:
    assert message(name=name).subject == subject


@pytest.mark.parametrize("details", ["epoch 1\nepoch 2", None])
def test_the_text_holds_name_id_status_and_details(details: str | None) -> None:
    assert message(details=details).text == (
        f"Name: train\nID: 7\nStatus: finished\n\nRun-time details:\n{details or 'none'}\n"
    )


def test_html_is_escaped() -> None:
    html = message(name="<img onerror=x>", details="a < b & c").html
    assert "<img" not in html
    assert "a &lt; b &amp; c" in html


def test_of_details_beyond_the_longest_length_the_end_is_kept() -> None:
    text = message(details="x" * MAX_DETAILS + "the end").text
    assert text.endswith("xthe end\n")
    assert len(text) < MAX_DETAILS + 200
    assert "[…]" in text
    assert "[…]" not in message(details="x" * MAX_DETAILS).text


def test_details_are_shown_as_on_a_terminal_before_their_length_counts() -> None:
    progress = "".join(f"\r\x1b[32m{percent:3}%\x1b[0m" for percent in range(101))
    text = message(details=f"start\n{progress * 100}\nend").text
    assert text.endswith("Run-time details:\nstart\n100%\nend\n")


def test_of_output_beyond_what_is_interpreted_the_end_is_kept() -> None:
    text = message(details="start\n" + "\r50%" * (MAX_OUTPUT // 4) + "\nend").text
    assert text.endswith("Run-time details:\n[…]\n50%\nend\n")
