import pytest

from notifier.messages import MAX_DETAILS, Mail, write_mail


def mail(**changes: object) -> Mail:
    values: dict[str, object] = {
        "recipient": "ada@example.org",
        "custom_id": "1",
        "correlation_id": None,
        "job_id": 7,
        "job_name": "train",
        "status": "finished",
        "details": "epoch 1\nepoch 2",
    }
    return write_mail(**(values | changes))  # type: ignore[arg-type]


def test_the_subject_names_job_id_and_status() -> None:
    assert mail().subject == "Job train (id=7) finished"


def test_the_subject_holds_the_name_as_it_is() -> None:
    assert mail(job_name=" a  b ").subject == "Job  a  b  (id=7) finished"


def test_the_text_tells_name_id_status_and_details() -> None:
    assert mail().text == (
        "Name: train\nID: 7\nStatus: finished\n\nRun-time details:\nepoch 1\nepoch 2\n"
    )


@pytest.mark.parametrize("name", ["a\r\nBcc: eve@example.org", "a\x00b", "a\u2028b"])
def test_a_name_cannot_break_out_of_the_subject(name: str) -> None:
    assert mail(job_name=name).subject.splitlines() == [mail(job_name=name).subject]


def test_an_adopted_job_without_a_name_gets_a_mail_all_the_same() -> None:
    assert mail(job_name=None).subject == "Job (id=7) finished"


def test_html_is_escaped() -> None:
    html = mail(job_name="<img onerror=x>", details="a < b & c").html
    assert "<img" not in html
    assert "a &lt; b &amp; c" in html


def test_of_long_details_the_end_is_kept() -> None:
    text = mail(details="x" * MAX_DETAILS + "the end").text
    assert text.endswith("xthe end\n")
    assert len(text) < MAX_DETAILS + 200


def test_details_of_just_the_longest_length_are_shown_whole() -> None:
    assert "[…]" not in mail(details="x" * MAX_DETAILS).text
    assert "[…]" in mail(details="x" * (MAX_DETAILS + 1)).text


def test_no_details_are_told_as_none() -> None:
    assert "Run-time details:\nnone\n" in mail(details=None).text
