"""The index is found where administrators configure it, and only its hosts may be reached."""

from pathlib import Path

import pytest

from perak.agent.environments.index import IndexSettings, pip_config_files


def settings(env: dict[str, str], *files: Path) -> IndexSettings:
    return IndexSettings.from_environment(env, files)


def test_with_nothing_configured_it_is_the_public_index_and_its_file_host() -> None:
    index = settings({})
    assert index.index_url == "https://pypi.org/simple"
    assert index.allowed_addresses() == {("pypi.org", 443), ("files.pythonhosted.org", 443)}
    assert index.local_folders() == ()


def test_pip_configuration_counts_and_the_stronger_file_wins(tmp_path: Path) -> None:
    weak, strong = tmp_path / "weak.conf", tmp_path / "strong.conf"
    (tmp_path / "mirror" / "simple").mkdir(parents=True)
    weak.write_text("[global]\nindex-url = https://weak.example/simple\ncert = /ca.pem\n")
    strong.write_text(
        "[global]\nindex_url = https://user:pa%ss@strong.example:8443/simple\n"
        f"[install]\nextra-index-url =\n    file://{tmp_path}/mirror/simple\n    file:///absent/simple\n"
    )
    index = settings({"PIP_FIND_LINKS": str(tmp_path)}, weak, strong)
    assert index.index_url == "https://user:pa%ss@strong.example:8443/simple"
    assert index.cert_file == Path("/ca.pem")
    assert index.best_match, "pip takes the best version of any index"
    assert index.allowed_addresses() == {("strong.example", 8443)}
    assert index.local_folders() == (tmp_path / "mirror", tmp_path)
    assert index.installer_variables() == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://user:pa%ss@strong.example:8443/simple",
        "UV_INDEX": f"file://{tmp_path}/mirror/simple",
        "UV_FIND_LINKS": str(tmp_path),
    }


def test_perak_over_uv_over_pip() -> None:
    env = {
        "PIP_INDEX_URL": "https://pip.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://extra.example/simple",
    }
    assert settings(env).index_url == "https://pip.example/simple"
    env["UV_INDEX_URL"] = "https://uv.example/simple"
    env["UV_INDEX"] = "corp=https://corp.example/simple https://other.example/simple"
    assert settings(env).index_url == "https://uv.example/simple"
    assert settings(env).extra_index_urls == ("https://corp.example/simple", "https://other.example/simple")
    assert not settings(env).best_match, "uv takes the first index that knows a package"
    env |= {
        "PERAK_INDEX_URL": "http://own.example/simple",
        "PERAK_INDEX_FILE_HOSTS": "cdn.example, big.example:8443",
    }
    assert settings(env).extra_index_urls == (), "Perak's own setting stands alone"
    assert settings(env).allowed_addresses() == {
        ("own.example", 80),
        ("cdn.example", 443),
        ("big.example", 8443),
    }


@pytest.mark.parametrize("contents", ["not an ini file", "[global\n", "\xff"])
def test_a_broken_pip_file_configures_nothing(tmp_path: Path, contents: str) -> None:
    file = tmp_path / "pip.conf"
    file.write_bytes(contents.encode("latin-1"))
    assert settings({}, file).index_url == "https://pypi.org/simple"


def test_no_index_leaves_only_the_folders(tmp_path: Path) -> None:
    index = settings({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)})
    assert index.allowed_addresses() == frozenset()
    assert "UV_DEFAULT_INDEX" not in index.installer_variables()
    assert index.installer_options() == ["--no-index"]


def test_the_nodes_own_proxy_is_used_but_not_where_it_should_not() -> None:
    index = settings({"HTTPS_PROXY": "http://bob:s%40fe@proxy.example:3128", "NO_PROXY": ".corp.example"})
    upstream = index.upstream_for("pypi.org", "https")
    assert upstream is not None
    assert (upstream.host, upstream.port) == ("proxy.example", 3128)
    assert upstream.authorization == "Basic Ym9iOnNAZmU="
    assert index.upstream_for("index.corp.example", "https") is None
    assert index.upstream_for("pypi.org", "http") is None


def test_pip_files_follow_the_environment() -> None:
    files = pip_config_files({"HOME": "/h", "XDG_CONFIG_HOME": "/x", "PIP_CONFIG_FILE": "/own.conf"})
    assert (
        files.index(Path("/etc/pip.conf"))
        < files.index(Path("/x/pip/pip.conf"))
        < files.index(Path("/own.conf"))
    )
    assert pip_config_files({"PIP_CONFIG_FILE": "/dev/null"}) == []
