"""The review queue against a real Label Studio."""

from __future__ import annotations

from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from tests.review_bench import CLASSES
from tests.review_case import Make, owner_of
from tests.review_people import Annotator

from labelmill.annotators.review.server import LabelStudioServer
from labelmill.errors import ReviewError, WorkspaceLockedError

pytestmark = pytest.mark.server


def test_pushing_twice_adds_nothing_and_tasks_say_everything(make: Make) -> None:
    case = make()
    first, second = case.push(), case.push()
    assert (first["new"], first["queue"]) == (12, 12)
    assert {k: second[k] for k in ("new", "updated", "opened", "closed", "removed", "kept")} == {
        "new": 0, "updated": 0, "opened": 0, "closed": 0, "removed": 0, "kept": 12,
    }  # fmt: skip
    tasks = case.tasks()
    assert {task["data"]["region_id"] for task in tasks} == set(case.truth())
    for task in tasks:
        (prediction,) = task["predictions"]
        choices = [p["value"]["choices"] for p in prediction["result"] if p["from_name"] == "label"]
        assert choices[0][0] in (*CLASSES, "NG")
        assert prediction["model_version"] == "labelmill"


def test_the_queue_hands_out_the_most_valuable_first(make: Make, people: list[Annotator]) -> None:
    case = make()
    case.push()
    ann = people[0]
    scores = {task["id"]: task["predictions"][0]["score"] for task in case.tasks()}
    handed = []
    while (task := ann.next(case.project())) is not None:
        handed.append(scores[task["id"]])
        ann.answer(task["id"], "disc")
    assert handed == sorted(scores.values())


def test_decisions_come_back_once_with_everything(make: Make, people: list[Annotator]) -> None:
    case = make()
    case.push()
    ann = people[0]
    tasks, truth = case.tasks(), case.truth()
    region = tasks[0]["data"]["region_id"]
    ann.answer(tasks[0]["id"], truth[region], seconds=3.5, box=(10, 20, 30, 40))
    ann.answer(tasks[1]["id"], "not sure")
    ann.answer(tasks[2]["id"], "NG")
    report = case.pull()
    assert (report["new_answers"], report["decided"], report["not_sure"]) == (3, 2, 1)
    assert case.pull()["new_answers"] == 0
    rows = {row["region_id"]: row for row in case.decisions()}
    assert len(rows) == 3
    row = rows[region]
    assert (row["label"], row["annotator"], row["seconds"], row["source"], row["superseded"]) == (
        truth[region], ann.email, 3.5, "label-studio", False,
    )  # fmt: skip
    assert row["xyxy"] == pytest.approx([12.8, 25.6, 51.2, 76.8])
    assert row["decided_at"].tzinfo is not None
    assert case.push()["new"] == 0


def test_a_group_is_asked_once_and_answered_for_all_only_if_told(make: Make, people: list[Annotator]) -> None:
    case = make(review="{group_similarity: 0.5}")
    report = case.push()
    assert report["queue"] + report["grouped"] == 12
    assert report["grouped"] >= 4
    ann = people[0]
    groups = [task for task in case.tasks() if len(task["data"]["members"]) >= 1]
    first, second = groups[:2]
    ann.answer(first["id"], "disc", group=True, seconds=6.0)
    ann.answer(second["id"], "bar")
    case.pull()
    members = [first["data"]["region_id"], *first["data"]["members"]]
    assert case.standing() == dict.fromkeys(members, "disc") | {second["data"]["region_id"]: "bar"}
    shares = [row["seconds"] for row in case.decisions() if row["region_id"] in members]
    assert sum(shares) == pytest.approx(6.0)
    again = case.push()
    # The members of the refused group are asked about one by one.
    assert again["new"] == len(second["data"]["members"])
    new = {task["data"]["region_id"]: task["data"]["members"] for task in case.tasks()}
    assert all(new[region] == [] for region in second["data"]["members"])


def test_annotators_who_disagree_send_the_task_back(make: Make, people: list[Annotator]) -> None:
    case = make(images=2, review="{group_similarity: 1.01, overlap: 2}")
    case.push()
    ann, bob, cid = people
    tasks = case.tasks()
    for task in tasks[:4]:
        ann.answer(task["id"], "disc")
    for task, label in zip(tasks[:4], ("disc", "bar", "disc", "not sure"), strict=True):
        bob.answer(task["id"], label)
    report = case.pull()
    assert (report["decided"], report["disputed"]) == (3, 1)
    assert report["alpha"] == pytest.approx(0.0)  # "not sure" is no answer; the rest agree as by chance
    torn = tasks[1]["data"]["region_id"]
    assert torn not in case.standing()
    state = {task["id"]: task["is_labeled"] for task in case.tasks()}
    assert [state[task["id"]] for task in tasks[:5]] == [True, False, True, True, False]
    handed = cid.next(case.project())
    assert handed is not None
    assert handed["id"] == tasks[1]["id"]  # begun tasks come first
    cid.answer(handed["id"], "bar")
    report = case.pull()
    assert (report["decided"], report["disputed"]) == (4, 0)
    assert case.standing()[torn] == "bar"
    agreement = {row["label"]: row["agreement"] for row in case.decisions() if row["region_id"] == torn}
    assert agreement == {"bar": pytest.approx(2 / 3), "disc": pytest.approx(2 / 3)}
    assert case.push()["new"] == 0


def test_a_changed_mind_replaces_and_a_removed_answer_is_taken_back(
    make: Make, people: list[Annotator]
) -> None:
    case = make(images=1)
    case.push()
    ann = people[0]
    task, other = case.tasks()[:2]
    region = task["data"]["region_id"]
    first = ann.answer(task["id"], "disc")
    ann.answer(other["id"], "bar")
    case.pull()
    ann.change(first, "NG")
    assert case.pull()["new_answers"] == 1
    assert case.standing()[region] == "NG"
    assert [(row["label"], row["superseded"]) for row in case.decisions() if row["region_id"] == region] == [
        ("disc", True), ("NG", False),
    ]  # fmt: skip
    ann.remove(first)
    assert case.pull(full=True)["new_answers"] == 1
    assert case.standing() == {other["data"]["region_id"]: "bar"}
    assert len(case.decisions()) == 3
    assert case.push()["new"] == 0  # its task is open again
    assert case.status()["open"] == 3


def test_an_empty_or_skipped_answer_decides_nothing(make: Make, people: list[Annotator]) -> None:
    case = make(images=1)
    case.push()
    ann, bob, _ = people
    tasks = case.tasks()
    ann.answer(tasks[0]["id"], None, box=(5, 5, 20, 20))
    ann.answer(tasks[1]["id"], None, skip=True)
    report = case.pull()
    assert (report["decided"], report["empty"], report["skipped"]) == (0, 1, 1)
    assert "1 answers choose nothing that counts: asked again" in case.said
    assert case.push()["new"] == 0
    offered = set()
    for _ in range(4):
        task = bob.next(case.project())
        assert task is not None
        offered.add(task["id"])
        bob.answer(task["id"], "bar")
    assert offered == {task["id"] for task in tasks}
    report = case.pull()
    assert (report["decided"], report["empty"], report["skipped"]) == (4, 0, 0)


def test_a_project_deleted_by_hand_is_made_anew_and_nothing_is_asked_twice(
    make: Make, people: list[Annotator], label_studio: LabelStudioServer
) -> None:
    case = make()
    case.push()
    for task in case.tasks()[:5]:
        people[0].answer(task["id"], "disc")
    case.pull()
    before = case.standing()
    with owner_of(label_studio) as owner:
        assert owner.delete(f"/api/projects/{case.project()}/").status_code == 204
    assert case.pull()["decided"] == 5
    assert case.standing() == before
    assert case.push()["new"] == 7
    assert case.standing() == before


def test_a_lost_workspace_table_costs_a_pull_and_nothing_else(make: Make, people: list[Annotator]) -> None:
    case = make(images=1)
    case.push()
    for task in case.tasks()[:3]:
        people[0].answer(task["id"], "disc")
    case.pull()
    before = case.decisions()
    for path in (case.workspace.root / "review").iterdir():
        path.unlink()
    case.workspace.table("decisions").unlink()
    assert case.pull()["new_answers"] == 3
    assert case.decisions() == before


def test_a_page_edited_by_hand_loses_no_answer(
    make: Make, people: list[Annotator], label_studio: LabelStudioServer
) -> None:
    case = make(images=1)
    case.push()
    tasks = case.tasks()
    project = case.project()
    with owner_of(label_studio) as owner:
        page = owner.get(f"/api/projects/{project}/").json()["label_config"]
        edited = page.replace('<Choice value="bar"', '<Choice value="washer" /><Choice value="beam"')
        assert edited != page
        assert owner.patch(f"/api/projects/{project}/", json={"label_config": edited}).status_code == 200
    people[0].answer(tasks[0]["id"], "washer")
    people[0].answer(tasks[1]["id"], "disc")
    report = case.pull()
    assert (report["decided"], report["unknown_labels"]) == (1, {"washer": 1})
    assert case.push()["new"] == 0
    with owner_of(label_studio) as owner:
        page = owner.get(f"/api/projects/{project}/").json()["label_config"]
    # The chosen answer stays, the renamed class has its name again, the unused one is gone.
    assert 'value="washer"' in page
    assert 'value="bar"' in page
    assert "beam" not in page
    # A template folder of that name makes it count.
    folder = case.file.parent / "templates"
    (folder / "washer").mkdir()
    (folder / "washer" / "0.png").write_bytes((folder / "disc" / "0.png").read_bytes())
    case.annotate()
    case.push()
    assert case.standing()[tasks[0]["data"]["region_id"]] == "washer"


def test_withdrawn_regions_are_closed_and_come_back(make: Make, people: list[Annotator]) -> None:
    case = make()
    case.push()
    people[0].answer(case.tasks()[0]["id"], "disc")
    case.set(matching="{lambda: -1, margin: 0, review_band: 0}", review="{audit_share: 0}")
    case.annotate()
    report = case.push()
    assert (report["closed"], report["queue"], report["decided"]) == (11, 0, 1)
    assert case.status()["open"] == 0
    assert people[1].next(case.project()) is None
    case.set(matching="{lambda: 0.3, margin: 2}")
    case.annotate()
    report = case.push()
    assert (report["new"], report["opened"], report["queue"]) == (0, 11, 11)
    assert case.status()["open"] == 11


def test_a_changed_prediction_updates_its_task(make: Make, people: list[Annotator]) -> None:
    case = make(images=2)
    case.push()
    before = {task["data"]["region_id"]: task for task in case.tasks()}
    folder = case.file.parent / "templates"
    for picture in (folder / "bar").iterdir():  # what was a bar is a disc now
        (folder / "disc" / f"b{picture.name}").write_bytes(picture.read_bytes())
        picture.write_bytes((folder / "disc" / "1.png").read_bytes())
    case.annotate()
    report = case.push()
    assert report["new"] == 0
    assert report["updated"] > 0
    after = {task["data"]["region_id"]: task for task in case.tasks()}
    table = pq.read_table(case.workspace.table("regions"))
    labels = dict(zip(table["region_id"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert {region: task["id"] for region, task in after.items()} == {
        region: task["id"] for region, task in before.items()
    }
    for region, task in after.items():
        (prediction,) = task["predictions"]
        assert prediction["result"][0]["value"]["choices"] == [labels[region]]
    assert case.push()["updated"] == 0


def test_tokens_of_both_kinds_work_and_a_wrong_one_is_one_line(
    make: Make, label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make(images=1)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    with pytest.raises(ReviewError, match=r"refuses the token.*review\.token_env"):
        case.push()
    with owner_of(label_studio) as owner:
        owner.patch("/api/jwt/settings", json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
        owner.post("/api/jwt/settings", json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
        made = owner.post("/api/token/")
        assert made.status_code == 201, made.text
        personal = made.json()["token"]
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", personal)
        assert case.push()["new"] == 4
        with case.desk() as desk:
            desk.studio.preflight()
            # An access token that the server does not take any more, as after a new secret key.
            desk.studio._client()._client_wrapper._tokens_client._access_token = personal
            assert desk.push()["kept"] == 4
        revoked = owner.post("/api/token/blacklist/", json={"refresh": personal})
        assert revoked.status_code in (200, 204), revoked.text
    with pytest.raises(ReviewError, match="refuses the token"):
        case.push()


def test_media_are_served_to_members_only_and_nothing_else_is(
    make: Make, people: list[Annotator], label_studio: LabelStudioServer
) -> None:
    case = make(images=1)
    case.push()
    data = case.tasks()[0]["data"]
    stranger = httpx.Client(base_url=people[0].client.base_url)
    for name in ("crop", "frame", "template_1", "template_2", "group_sheet"):
        reply = people[0].client.get(data[name])
        assert reply.status_code == 200
        assert reply.content[:2] == b"\xff\xd8"
        assert stranger.get(data[name]).status_code in (401, 403)
    (case.workspace.root / "secret.txt").write_text("secret")
    prefix = data["crop"].partition("?d=")[2].partition("/")[0]
    outside = (
        "../secret.txt",
        "../../line.yaml",
        "../../access.json",
        "../../../../../../../../etc/hostname",
    )
    for path in (*(f"{prefix}/{step}" for step in outside), "/etc/hostname", "../access.json", prefix):
        reply = people[0].client.get("/data/local-files/", params={"d": path})
        assert reply.status_code >= 400, path
        assert b"secret" not in reply.content
    stranger.close()


def test_a_workspace_outside_the_document_root_is_refused(
    make: Make, tmp_path: Path, label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make(images=1)
    access = label_studio.access()
    assert access is not None
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", access.token)
    elsewhere = tmp_path / "elsewhere"
    case.set(review=f"{{url: '{access.url}', media: {{document_root: '{elsewhere}'}}}}")
    with pytest.raises(ReviewError, match="not below the server's document root"):
        case.push()
    case.set(review=f"{{url: '{access.url}'}}")
    with pytest.raises(ReviewError, match=r"review\.media\.document_root or review\.media\.bucket"):
        case.push()


def test_two_pushes_at_once_and_duplicates_of_others(make: Make, label_studio: LabelStudioServer) -> None:
    case = make(images=1)
    with case.desk() as desk:
        with pytest.raises(WorkspaceLockedError, match="in use"):
            case.push()
        desk.push()
    tasks = case.tasks()
    with owner_of(label_studio) as owner:  # as a push from another copy of the workspace would
        owner.post(f"/api/projects/{case.project()}/import", json=[{"data": task["data"]} for task in tasks])
    report = case.push()
    assert (report["new"], report["removed"], report["kept"]) == (0, 4, 4)
    assert [task["id"] for task in case.tasks()] == [task["id"] for task in tasks]


def test_a_server_that_is_down_is_one_line(make: Make) -> None:
    case = make(images=1)
    case.set(review="{url: 'http://127.0.0.1:9', patience_s: 0.5, media: {bucket: 's3://x/y'}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
        with pytest.raises(ReviewError, match=r"does not answer.*labelmill services up"):
            case.push()
