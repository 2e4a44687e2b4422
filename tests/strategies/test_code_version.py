from __future__ import annotations

import pytest

from powerctl.errors import InvalidInput
from strategies.code_version import check_code_version, code_version


def test_the_same_code_is_accepted_and_other_code_named_with_its_folder():
    check_code_version(code_version())
    with pytest.raises(InvalidInput, match="server runs 0123.*start it in the folder of the app"):
        check_code_version("0123")
