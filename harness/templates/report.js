// Shows the figures of the bin under the pointer. The page is whole without it.
(function () {
  var tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.appendChild(tip);
  function duration(us) {
    return us < 1e3 ? us + " µs" : us < 1e6 ? (us / 1e3).toPrecision(3) + " ms" : (us / 1e6).toFixed(2) + " s";
  }
  document.querySelectorAll("figure[data-readout]").forEach(function (figure) {
    var data = JSON.parse(figure.dataset.readout);
    var rule = document.createElement("div");
    rule.className = "rule";
    rule.hidden = true;
    figure.appendChild(rule);
    // A browser would show the title as a tip of its own over ours; the label stays for screen readers.
    figure.querySelectorAll("svg > title").forEach(function (title) { title.remove(); });
    function hide() { tip.hidden = rule.hidden = true; }
    figure.addEventListener("pointerleave", hide);
    figure.addEventListener("pointermove", function (event) {
      var svg = event.target.closest && event.target.closest("svg");
      if (!svg) { return hide(); }
      var box = svg.getBoundingClientRect(), left = +svg.dataset.left, right = +svg.dataset.right;
      var share = ((event.clientX - box.left) / box.width - left) / (right - left);
      if (share < 0 || share > 1) { return hide(); }
      var bin = Math.floor((data.from + share * (data.until - data.from)) / data.bin);
      var rows = data.series.filter(function (s) { return bin >= 0 && s[1][bin] != null; });
      if (!rows.length) { return hide(); }
      tip.textContent = (bin * data.bin).toFixed(2) + " s";
      rows.forEach(function (s) {
        var row = document.createElement("div"), value = document.createElement("b");
        value.textContent = data.unit === "us" ? duration(s[1][bin]) : s[1][bin].toLocaleString("en");
        row.append(s[0], value);
        tip.appendChild(row);
      });
      tip.hidden = rule.hidden = false;
      tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
      tip.style.top = Math.max(8, event.clientY - tip.offsetHeight - 12) + "px";
      var frame = figure.getBoundingClientRect();
      rule.style.left = event.clientX - frame.left + "px";
      rule.style.top = box.top - frame.top + "px";
      rule.style.height = box.height + "px";
    });
  });
})();
