from hypothesis import given
from hypothesis import strategies as st

from dermaray.data.groups import components, crossings, group_ids

keys = st.lists(st.one_of(st.none(), st.sampled_from("abcd")), min_size=8, max_size=8)


def test_components_join_what_a_chain_of_edges_connects() -> None:
    assert components(6, [(3, 1), (1, 5), (0, 4)]) == [0, 1, 2, 1, 0, 1]
    assert components(3, []) == [0, 1, 2]


def test_a_group_is_what_any_chain_of_bonds_connects() -> None:
    bonds = {"lesion": ["L1", "L1", None, None, "L2"], "patient": [None, "P1", "P1", None, None]}
    assert group_ids(["c", "a", "b", "x", "y"], bonds) == ["a", "a", "a", "x", "y"]


@given(lesions=keys, patients=keys)
def test_no_bond_is_parted_by_groups(lesions: list[str | None], patients: list[str | None]) -> None:
    bonds = {"lesion": lesions, "patient": patients}
    assert crossings(bonds, group_ids([str(i) for i in range(8)], bonds)) == []


def test_a_crossing_names_its_bond_and_an_image_of_each_side() -> None:
    bonds = {"lesion": ["L1", "L1", "L1", "L2"], "patient": ["P1", "P1", "P1", "P1"]}
    lesion, patient = crossings(bonds, ["train", "train", "test", "test"])
    assert lesion.describe(list("abcd"), ["train", "train", "test", "test"]) == "lesion L1: c in test, a in train"
    assert (patient.bond, patient.positions) == ("patient", (0, 1, 2, 3))


def test_what_several_bonds_hold_together_is_told_once() -> None:
    bonds = {"lesion": ["L1", "L1"], "duplicate cluster": ["a", "a"]}
    assert [c.bond for c in crossings(bonds, ["train", "val"])] == ["lesion"]


def test_an_image_without_a_split_crosses_nothing() -> None:
    assert crossings({"lesion": ["L1", "L1"]}, ["train", None]) == []


def test_the_first_of_each_bond_comes_first() -> None:
    bonds = {"lesion": ["A", "A", "B", "B", None, None], "patient": [None, None, None, None, "P", "P"]}
    assert [c.key for c in crossings(bonds, ["train", "val"] * 3)] == ["A", "P", "B"]
