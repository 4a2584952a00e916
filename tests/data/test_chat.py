"""Chat templates see the date they are told, and are otherwise as they would be."""

from datetime import datetime

import pytest
from conftest import byte_tokenizer

from polylect.data.chat import render

TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize(
    "written", ["%d %b %Y", "%A, %-d. %B %y", "100 %% on %F", "%j", "", "'\"|{{", "%Y%m%d"]
)
@pytest.mark.parametrize("before", ["", "\n", "\n\n", "  ", "\n  x\n"])
def test_on_its_day_a_chat_template_prints_what_it_would_by_itself(
    written: str, before: str
) -> None:
    today = datetime.now()
    source = f"{before}{{% if true %}}{{{{ strftime_now({written!r}) }}}}{{% endif %}}\n {TURNS}"
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = source
    turns = [{"role": "user", "content": "hot"}]
    expected = tokenizer.apply_chat_template(turns, tokenize=False)
    assert today.strftime(written) in expected
    assert render(tokenizer, [turns], answer=False, date=f"{today:%Y-%m-%d}") == [expected]
