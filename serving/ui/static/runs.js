// The pipeline's runs, one or two side by side: curves, figures with intervals, reliability, report and model card.
import { askJson } from "./api.js";
import { lines } from "./charts.js";
import { choice, isNumber, make, note, round, table, withStates } from "./dom.js";
import { onceUp } from "./server.js";
import { recall, remember } from "./settings.js";

const FIGURES = {
  "ROC-AUC, slices": m => m.classification?.slice?.figures?.roc_auc,
  "ROC-AUC, patients": m => m.classification?.patient?.figures?.roc_auc,
  "Sensitivity, slices": m => m.classification?.slice?.figures?.sensitivity,
  "Specificity, slices": m => m.classification?.slice?.figures?.specificity,
  "Accuracy, slices": m => m.classification?.slice?.figures?.accuracy,
  "F1, slices": m => m.classification?.slice?.figures?.f1,
  "Calibration error (ECE)": m => m.classification?.slice?.figures?.ece,
  "Brier score": m => m.classification?.slice?.figures?.brier,
  "Dice WT": m => m.segmentation?.WT?.dice, "Dice TC": m => m.segmentation?.TC?.dice, "Dice ET": m => m.segmentation?.ET?.dice,
  "HD95 WT, mm": m => m.segmentation?.WT?.hd95_mm, "HD95 TC, mm": m => m.segmentation?.TC?.hd95_mm, "HD95 ET, mm": m => m.segmentation?.ET?.hd95_mm,
};
const STAGES = { seg_warmup: "segmentation warm-up", cls_head: "classification head", joint: "joint" };

const interval = (figure, digits) => (isNumber(figure?.value) ? `${round(figure.value, digits)} (${round(figure.low, digits)} to ${round(figure.high, digits)})${isNumber(figure.n) ? `, n=${figure.n}` : ""}` : "–");
const stagesOf = metrics => [...(metrics.training?.before ?? []), metrics.training].filter(one => one?.history?.length);

/** The epochs of all stages one after the other, each stage a line of its own. */
function curve(title, metrics, key, most = null) {
  let done = 0;
  const series = stagesOf(metrics).map(stage => {
    const points = stage.history.map(one => [done + one.epoch, one[key]]);
    done += stage.history.length;
    return { name: STAGES[stage.stage] ?? stage.stage, points, place: Object.keys(STAGES).indexOf(stage.stage) };
  }).filter(one => one.points.some(([, y]) => isNumber(y)));
  return lines(title, series, { x: "epoch", dots: true, most });
}

function reliability(metrics) {
  const test = metrics.calibration_figures?.tumour?.test ?? {};
  const same = JSON.stringify(test.before?.bins) === JSON.stringify(test.after?.bins);
  const names = same ? { after: "calibration left the probabilities as they were" } : { before: "before calibration", after: "after calibration" };
  const series = Object.entries(names).map(([key, name]) => ({
    name, told: true, points: (test[key]?.bins ?? []).map(bin => [bin.probability, bin.frequency]),
  })).filter(one => one.points.length);
  return lines("Reliability on the test patients: predicted against observed (dashed: ideal)", series, { x: "predicted probability", fixed: true, dots: true });
}

const address = (run, what) => `/ui/api/runs/${encodeURIComponent(run.name)}/${what}`;

function paper(run, kind, title) {
  if (!run.documents.includes(kind)) return note(`${title}: the run has none.`, "small");
  const place = make("div");
  const open = make("details", { className: "paper", ontoggle: () => {
    if (open.open && !place.firstChild) place.append(make("iframe", { src: address(run, kind), title: `${title} of ${run.name}` }));
  } }, make("summary", {}, title), make("p", { className: "small" }, make("a", { href: address(run, kind), target: "_blank", rel: "noopener" }, "open in a tab of its own")), place);
  return open;
}

function card(run, metrics) {
  const facts = [run.mode && `mode ${run.mode}`, run.status, isNumber(run.seconds) && `${round(run.seconds / 60, 0)} min`, metrics.synthetic && "synthetic data"].filter(Boolean);
  return make("article", { "aria-label": run.name }, make("h2", {}, run.name), note(facts.join(" · "), "small"),
    metrics.verdict ? make("p", { className: metrics.verdict.passed ? "tag no_tumour" : "tag failed" }, metrics.verdict.passed ? "gate passed" : "gate refused") : null,
    metrics.verdict ? note(metrics.verdict.summary, "") : null,
    make("div", { className: "beside" }, curve("Validation loss", metrics, "val_loss"), curve("Validation Dice", metrics, "val_dice", 1), curve("Validation ROC-AUC", metrics, "val_auc", 1), reliability(metrics)),
    paper(run, "report", "Report"), paper(run, "card", "Model card"));
}

function figures(shown) {
  const rows = Object.entries(FIGURES).map(([name, find]) => {
    const found = shown.map(([, metrics]) => find(metrics));
    const values = found.map(figure => figure?.value), digits = name.endsWith("mm") ? 1 : 3;
    const difference = shown.length === 2 ? [values.every(isNumber) ? `${values[1] - values[0] >= 0 ? "+" : "−"}${round(Math.abs(values[1] - values[0]), digits)}` : "–"] : [];
    return [name, ...found.map(figure => interval(figure, digits)), ...difference];
  });
  const heads = ["Figure", ...shown.map(([run]) => run.name), ...(shown.length === 2 ? ["Difference"] : [])];
  return table("Figures on the test patients, with 95 % intervals over n of them", heads, rows, [1, 2, 3]);
}

export function build(panel) {
  const place = make("div"), bar = make("div", { className: "actions" });
  panel.append(bar, place);
  let there = false;
  const load = () => withStates(place, async () => {
    const all = await askJson("/ui/api/runs");
    there = true;
    if (!all.length) return [note("No runs yet. Start the server with --runs FOLDER, where FOLDER is where slicewise run writes (runs/).", "empty")];
    const options = all.map(run => [run.name, run.name]), named = key => (options.some(([id]) => id === recall(key)) ? recall(key) : undefined);
    const first = choice("Run", options, named("run") ?? all[0].name), second = choice("Beside it", [["", "none"], ...options], named("beside"));
    const shown = make("div");
    const draw = () => {
      remember("run", first.value);
      remember("beside", second.value);
      return withStates(shown, async () => {
        const chosen = [first.value, second.value].filter((name, at, list) => name && list.indexOf(name) === at).map(name => all.find(run => run.name === name));
        const found = await Promise.all(chosen.map(async run => [run, await askJson(address(run, "metrics"))]));
        return [figures(found), make("div", { className: "beside" }, found.map(([run, metrics]) => card(run, metrics)))];
      });
    };
    [first, second].forEach(one => one.input.addEventListener("change", draw));
    bar.replaceChildren(first.node, second.node, make("span", { className: "small" }, `${all.length} found, newest first`));
    await draw();
    return [shown];
  }, "Looking for runs …");
  load();
  onceUp(() => { if (!there && !place.hasAttribute("aria-busy")) load(); });
}
