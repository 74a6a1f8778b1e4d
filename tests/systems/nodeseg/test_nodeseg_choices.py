"""Rules of node segmentation: region, channels, network and sampling from hand-made fingerprints."""

import pytest
from planner_samples import box_lesion, hand_made_case, regions, table_2_histogram
from segmentation_plan import segmentation_plan

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Target
from nndet_psma.cli.config import compose_config
from nndet_psma.core.errors import UserError
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.planner import choose_nodeseg, dataset_name
from nndet_psma.systems.nodeseg.training import epoch_steps

CPU, GPU = Target("cpu", 0.0), Target("gpu", 24.0, 2)


def fingerprint(modalities, cases):
    return Fingerprint("Task100_Nodes", dict(enumerate_keys(modalities)), {"0": "node"}, cases)


def enumerate_keys(names):
    return [(str(i), name) for i, name in enumerate(names)]


def ct_case(name="a", *, ctv=False, body=(0.0, 20.0, 30.0, 20.0, 180.0, 270.0), **more):
    ctv_box = (2.0, 60.0, 80.0, 18.0, 140.0, 220.0) if ctv else None
    lesions = [box_lesion(1, (2, 6, 6), outside=0.0 if ctv else None)]
    return hand_made_case(
        name, lesions=lesions, lesion_hu=table_2_histogram(), ctv_box=ctv_box, body_box=body, **more
    )


def chosen(modalities, cases, target=CPU, **options):
    return choose_nodeseg(fingerprint(modalities, cases), NodeSegOptions(**options), target)


def test_a_ctv_is_cut_out_with_margin_and_context():
    found = chosen(["CT", "CTV"], [ct_case(ctv=True)])
    assert (found.crop, found.margin_mm, found.context_mm) == ("ctv", 6.48, 20.0)
    assert found.postproc_defaults["zone_mm"] == 6.48


def test_a_small_body_is_cut_out():
    """160 x 240 of 200 x 300 pixels are 64 %, below 75 %."""
    found = chosen(["CT"], [ct_case()])
    assert (found.crop, found.margin_mm, found.context_mm) == ("body", 5.0, 0.0)
    assert "64%" in found.decisions["crop"].evidence


def test_a_body_that_fills_the_image_is_linked():
    found = chosen(["CT"], [ct_case(body=(0.0, 0.0, 0.0, 20.0, 190.0, 290.0))])
    assert (found.crop, found.margin_mm) == ("image", 0.0)


def test_a_ctv_that_is_not_there_cannot_be_cut():
    with pytest.raises(UserError, match="no modality is called CTV"):
        chosen(["CT"], [ct_case()], crop="ctv")


def test_windows_become_channels_of_the_same_file():
    """The lesions of table 2 span -97..310 HU; shared with -125..225 are 322 of 435 HU, 74 %: another window."""
    found = chosen(["CT", "CTV"], [ct_case(ctv=True)])
    assert [(c.modality, c.lower, c.upper) for c in found.channels] == [(0, None, None), (0, -125.0, 225.0)]
    own = chosen(["CT", "CTV"], [ct_case(ctv=True)], windows=[(-50.0, 150.0)], ctv_channel=True)
    assert [(c.modality, c.scheme, c.lower) for c in own.channels] == [
        (0, "CTNormalization", None),
        (0, "CTNormalization", -50.0),
        (1, "NoNormalization", None),
    ]


def dwi_case(name, adc):
    intensities = {"DWI": regions(0, 40, 900), "ADC": regions(0, adc, 3000)}
    return hand_made_case(name, lesions=[box_lesion(1, (2, 6, 6), outside=None)], intensities=intensities)


def test_dwi_is_zscored_and_adc_keeps_its_unit_where_cases_agree():
    found = chosen(["DWI", "ADC"], [dwi_case("a", 1200), dwi_case("b", 1500)])
    assert [c.scheme for c in found.channels] == ["ZScoreNormalization", "CTNormalization"]
    assert found.crop == "image"


def test_adc_in_two_units_is_zscored():
    """1200 and 1.2: a factor of 1000."""
    found = chosen(["DWI", "ADC"], [dwi_case("a", 1200), dwi_case("b", 1.2)])
    assert [c.scheme for c in found.channels] == ["ZScoreNormalization"] * 2
    assert "1000.0" in found.decisions["channels"].evidence


@pytest.mark.parametrize(
    ("target", "network", "gb", "features"),
    [
        (CPU, "plain", 0.3, 8),
        (Target("gpu", 8.0), "plain", 8.0, None),
        (Target("gpu", 11.0), "resenc_m", 8.0, None),
        (GPU, "resenc_l", 24.0, None),
        (Target("gpu", 80.0), "resenc_xl", 40.0, None),
    ],
)
def test_the_network_follows_the_machine(target, network, gb, features):
    budget = chosen(["CT"], [ct_case()], target).budget
    assert (budget.network, budget.gpu_gb, budget.features) == (network, gb, features)
    assert budget.gpus == target.gpus


def test_the_preset_gives_the_median_image_its_matrix():
    """20 slices of 3 mm, 200 x 300 pixels of 1 mm into 64 x 256 x 256."""
    found = chosen(["CT"], [ct_case()], matrix=(64, 256, 256))
    assert found.spacing == (0.9375, 0.7812, 1.1719)
    assert found.patch_size == (64, 256, 256)


def test_rare_nodes_and_few_positive_cases_are_drawn_more_often():
    """72 voxels of 3 mm3 in a body of 20 x 160 x 240 voxels: 0.009 %; one of three cases has a node."""
    cases = [ct_case("a"), hand_made_case("b"), hand_made_case("c")]
    training = chosen(["CT"], cases).training
    assert (training.foreground_share, training.case_share) == (0.5, 0.67)
    assert chosen(["CT"], [ct_case("a")]).training.case_share == 0.0


def test_schedules_and_options():
    training = chosen(["CT"], [ct_case()], GPU).training
    assert (training.epochs, training.iterations, training.learning_rate) == (1000, 250, 0.01)
    own = chosen(["CT"], [ct_case()], optimizer="adam", epochs=3, loss="tversky").training
    assert (own.epochs, own.learning_rate, own.loss) == (3, 1e-4, "tversky")


@pytest.mark.parametrize(("batch", "steps"), [(10, 31), (4, 78), (309, 1)])
def test_an_epoch_of_the_study_is_its_training_set(batch, steps):
    """309 images: 30 batches of 10 are 300, so a 31st is begun; 77 of 4 are 308."""
    config = compose_config("Task900_X", ["train=nodeseg_dwi2022"])
    options = config.plan_cfg
    training = chosen(["CT"], [ct_case()], epochs=options.epochs).training
    found, why = epoch_steps(training, options, batch)
    assert (found.epochs, found.iterations) == (300, steps)
    assert f"of {steps} steps: 309 images" in why["training.epochs"].evidence


def test_steps_of_an_epoch_go_before_images():
    options = NodeSegOptions(epoch_images=309, iterations=7)
    training = chosen(["CT"], [ct_case()], iterations=7).training
    assert epoch_steps(training, options, 10) == (training, {})
    assert epoch_steps(training, NodeSegOptions(), 10) == (training, {})


def test_every_choice_has_a_reason():
    found = chosen(["CT", "CTV"], [ct_case(ctv=True)])
    assert {"crop", "margin_mm", "channels", "network", "spacing", "training.loss"} <= set(found.decisions)


def test_no_lesions_is_refused():
    with pytest.raises(UserError, match="nothing to learn"):
        chosen(["CT"], [hand_made_case("a")])


def test_options_are_checked():
    with pytest.raises(UserError, match="unknown key"):
        NodeSegOptions.parse({"epoch": 3})
    with pytest.raises(UserError, match="exclude each other"):
        NodeSegOptions.parse({"spacing": [1, 1, 1], "matrix": [2, 2, 2]})


def test_names():
    assert dataset_name("Task100_Nodes") == "Dataset100_Nodes"


@pytest.mark.parametrize("ending", ["/../x", "../../x", "nii.gz", "", ".nii.gz.zip"])
def test_a_file_ending_is_no_path(ending):
    """The plan may come from a stranger, and names of files are made with it."""
    assert segmentation_plan().file_ending == ".nii.gz"
    with pytest.raises(ValueError, match="file_ending: expected one such as"):
        segmentation_plan(file_ending=ending)
