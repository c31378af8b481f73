// The page can be read without this: it names what is pointed at, opens the tree, and follows a link into the other mode.
'use strict';

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

function say(svg, text) {
  const line = svg.closest('figure').querySelector('.say');
  const lines = [...svg.closest('figure').querySelectorAll('.say')];
  const own = lines.find((line) => svg.compareDocumentPosition(line) & Node.DOCUMENT_POSITION_FOLLOWING);
  (own || line).textContent = text;
}

function pointNear(svg, x, y) {
  let best = null, least = 40;
  for (const point of svg.querySelectorAll('.p')) {
    const box = point.getBoundingClientRect();
    const dx = Math.max(box.left - x, 0, x - box.right), dy = Math.max(box.top - y, 0, y - box.bottom);
    const distance = point.localName === 'rect' ? dx : Math.hypot(dx, dy);
    if (distance < least) { least = distance; best = point; }
  }
  return best;
}

function select(svg, point) {
  svg.querySelectorAll('.on').forEach((other) => other.classList.remove('on'));
  if (!point) return;
  point.classList.add('on');
  say(svg, point.querySelector('title').textContent);
}

function cellAt(svg, x, y) {
  const box = svg.getBoundingClientRect(), { width, height } = svg.viewBox.baseVal;
  const column = Math.floor((x - box.left) / box.width * width), row = Math.floor((y - box.top) / box.height * height);
  const { cells, low, high, unit } = svg.dataset, at = row * width + column, letter = cells[at];
  if (column < 0 || column >= width || letter === undefined || letter === '.') return;
  const share = (LETTERS.indexOf(letter) + 0.5) / LETTERS.length;
  const figure = letter === '0' ? 'exact' : letter === '!' ? 'not finite'
    : 'relative L2 about ' + (low * Math.pow(high / low, share)).toExponential(1).replace('+', '');
  const place = unit === 'token' ? at : '(' + column + ', ' + row + ')';
  say(svg, unit + ' ' + place + ': ' + figure);
}

function pointed(event) {
  const svg = event.target.closest('svg');
  if (!svg) return;
  if (svg.dataset.cells) cellAt(svg, event.clientX, event.clientY);
  else select(svg, pointNear(svg, event.clientX, event.clientY));
}
document.addEventListener('pointermove', pointed);
document.addEventListener('pointerdown', pointed);

// Arrow keys walk along the points of a plot that has the focus.
document.addEventListener('keydown', (event) => {
  const svg = event.target.classList.contains('box') && event.target.querySelector('svg.lines');
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!svg || !step) return;
  const points = [...svg.querySelectorAll('.p')], at = points.findIndex((point) => point.classList.contains('on'));
  select(svg, points[(at + step + points.length) % points.length]);
  event.preventDefault();
});

document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-open]'), link = event.target.closest('[data-mode]');
  if (button) {
    for (const view of button.closest('section').querySelectorAll('.view')) {
      if (view.offsetParent) view.querySelectorAll('details').forEach((node) => { node.open = !!button.dataset.open; });
    }
  }
  if (link) {
    document.querySelector('input[value="' + link.dataset.mode + '"]').checked = true;
    const target = document.querySelector(link.getAttribute('href'));
    for (let node = target; node; node = node.parentElement) if (node.localName === 'details') node.open = true;
  }
});
