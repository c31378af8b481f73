// Looks at the page it stands in and tells the frame around it what is wrong. It runs before anything else of the page.
'use strict';
const wrong = [];
addEventListener('error', (event) => wrong.push('error: ' + event.message));
addEventListener('securitypolicyviolation', (event) => wrong.push('refused: ' + event.violatedDirective));

addEventListener('load', () => {
  const expected = window.EXPECTED;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const visible = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getBoundingClientRect().height > 0;
  const check = (good, what) => { if (!good) wrong.push(what); };

  function look(when) {
    check(document.documentElement.scrollWidth <= innerWidth, when + ': ' + document.documentElement.scrollWidth + ' px wide');
    const svgs = all('svg').filter((svg) => svg.checkVisibility());
    check(!expected.svgs || svgs.length > 0, when + ': no svg');
    for (const svg of svgs) {
      const box = svg.getBoundingClientRect();
      check(box.width > 20 && box.height > 3, when + ': svg of ' + box.width + ' by ' + box.height);
      for (const mark of svg.querySelectorAll('path, circle, rect, text')) {
        const inside = mark.getBoundingClientRect();
        const whole = inside.left >= box.left - 8 && inside.right <= box.right + 8 && inside.top >= box.top - 8
          && inside.bottom <= box.bottom + 8;
        check(whole || mark.getAttribute('d') === '', when + ': ' + mark.outerHTML.slice(0, 120) + ' is outside of its svg');
      }
    }
    all('text').filter((text) => text.checkVisibility()).forEach((text) => {
      check(text.textContent.trim() !== '' && !/NaN|undefined|inf/.test(text.textContent), when + ': label ' + text.textContent);
    });
  }

  function finger(when) {
    const shown = all('.finger').filter(visible);
    check(shown.length === (expected.finger ? 1 : 0), when + ': ' + shown.length + ' fingers');
  }

  look('at first');
  finger('at first');
  const headline = document.querySelector('h1');
  check(visible(headline) && (!expected.finger || headline.textContent.includes(expected.finger)), 'the headline is ' + headline.textContent);

  const closed = all('summary.row').find((summary) => visible(summary) && !summary.parentElement.open);
  if (closed) {
    closed.click();
    const row = closed.parentElement.querySelector('li');
    check(closed.parentElement.open && visible(row), 'the tree does not open');
    closed.focus();
    check(document.activeElement === closed, 'the tree takes no focus');
  }
  const button = document.querySelector('[data-open="1"]');
  button.click();
  check(all('.tree li.row').some(visible), 'open all opens nothing');
  look('with all open');
  const only = document.getElementById('only-bad');
  only.click();
  check(!all('.tree li.ok').some(visible), 'what does not diverge is still there');
  finger('with what diverges only');
  only.click();

  for (const svg of all('svg').filter(visible)) {
    const box = svg.getBoundingClientRect();
    const mark = (svg.querySelector('.p') || svg.querySelector('.ring')).getBoundingClientRect();
    all('.say').forEach((say) => { say.textContent = ''; });
    svg.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: mark.left + mark.width / 2, clientY: mark.top + Math.min(2, mark.height / 2) }));
    const said = [...svg.closest('figure').querySelectorAll('.say')].map((say) => say.textContent).join('');
    check(said !== '' && !/NaN|undefined/.test(said), 'pointing at an svg of ' + box.width + ' px says ' + said);
  }

  const other = all('.modes input').find((input) => !input.checked);
  check(!!other === expected.modes, 'modes: ' + !!other);
  if (other) {
    const before = all('.view').filter(visible).map((view) => view.className);
    document.querySelector('label[for="' + other.id + '"]').click();
    const after = all('.view').filter(visible).map((view) => view.className);
    check(after.length === before.length && after.every((name, at) => name !== before[at]), 'switching shows ' + after);
    look('in the other mode');
    finger('in the other mode');
    const link = all('[data-mode]').find((link) => link.dataset.mode !== other.value);
    if (link) {
      link.click();
      check(!other.checked, 'a link does not switch the mode');
      finger('behind a link');
    }
  }
  check(performance.getEntriesByType('resource').length === 0, 'something was fetched');
  check(document.title !== 'pwned', 'a name became a script');
  parent.postMessage({ wrong, width: innerWidth, svgs: all('svg').length }, '*');
});
