(function () {
  "use strict";
  document.documentElement.classList.add("js");

  function all(selector, root) { return Array.prototype.slice.call((root || document).querySelectorAll(selector)); }

  // Pictures: one study and one of its slices at a time.
  function startViewer(viewer) {
    var shots = all(".shot", viewer), choice = viewer.querySelector("select"), place = viewer.querySelector(".place");
    var study = 0, slice = 0;
    function slices() { return all(".slice", shots[study]); }
    function show(newStudy, newSlice) {
      study = (newStudy + shots.length) % shots.length;
      var here = slices();
      slice = newSlice < 0 ? here.length - 1 : Math.min(newSlice, here.length - 1);
      shots.forEach(function (shot, at) { shot.classList.toggle("on", at === study); });
      here.forEach(function (part, at) { part.classList.toggle("on", at === slice); });
      choice.selectedIndex = study;
      place.textContent = "slice " + (slice + 1) + " of " + here.length;
    }
    function step(by) {
      if (slice + by < 0) { show(study - 1, -1); } else if (slice + by >= slices().length) { show(study + 1, 0); } else { show(study, slice + by); }
    }
    // A study opens on its middle slice, where the tumour is largest as a rule.
    function open(at) { show(at, Math.floor((all(".slice", shots[(at + shots.length) % shots.length]).length - 1) / 2)); }
    function inSight() { var box = viewer.getBoundingClientRect(); return box.bottom > 80 && box.top < window.innerHeight - 80; }
    function goTo(id) {
      var at = shots.map(function (shot) { return shot.id; }).indexOf(id);
      if (at < 0) { return; }
      open(at);
      viewer.scrollIntoView({ block: "start" });
      viewer.focus({ preventScroll: true });
    }
    all("button", viewer).forEach(function (button) {
      button.addEventListener("click", function () {
        var by = Number(button.dataset.by);
        if (button.dataset.step === "study") { open(study + by); } else { step(by); }
      });
    });
    choice.addEventListener("change", function () { open(choice.selectedIndex); });
    document.addEventListener("keydown", function (event) {
      var by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || !inSight()) { return; }
      event.preventDefault();
      if (event.shiftKey) { open(study + by); } else { step(by); }
    });
    document.addEventListener("click", function (event) {
      var link = event.target.closest ? event.target.closest("a") : null;
      var target = link ? link.getAttribute("href") : "";
      if (target && target.indexOf("#study-") === 0) { goTo(target.slice(1)); }
    });
    window.addEventListener("hashchange", function () { goTo(location.hash.slice(1)); });
    open(0);
    goTo(location.hash.slice(1));
  }

  // Tables: a click on a column's name sorts by it, a second one turns the order round; empty cells stay last.
  function startTable(table) {
    var body = table.tBodies[0];
    all("thead th", table).forEach(function (head, column) {
      var button = head.querySelector("button");
      if (!button) { return; }
      button.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        all("thead th", table).forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        function key(row) { var cell = row.cells[column]; return cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v; }
        Array.prototype.slice.call(body.rows).sort(function (one, other) {
          var x = key(one), y = key(other);
          if (x === "" || y === "") { return (x === "") - (y === ""); }
          var order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : Number(x) - Number(y);
          return down ? -order : order;
        }).forEach(function (row) { body.appendChild(row); });
      });
    });
  }

  // Contents: the section in sight is marked.
  function startContents(nav) {
    if (!window.IntersectionObserver) { return; }
    var links = {};
    all("a", nav).forEach(function (link) { links[link.getAttribute("href").slice(1)] = link; });
    var watch = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) { return; }
        all("a.here", nav).forEach(function (link) { link.classList.remove("here"); });
        if (links[entry.target.id]) { links[entry.target.id].classList.add("here"); }
      });
    }, { rootMargin: "-15% 0px -75% 0px" });
    all("main section[id]").forEach(function (section) { watch.observe(section); });
  }

  document.addEventListener("DOMContentLoaded", function () {
    all(".viewer").forEach(function (viewer) { if (viewer.querySelector(".shot")) { startViewer(viewer); } });
    all("table.sortable").forEach(startTable);
    all("nav.contents").forEach(startContents);
  });
})();
