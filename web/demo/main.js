// The way in. Whatever keeps the page from working is said on the page, never left to the console alone.

import('./app.js').then(({ start }) => start()).catch((error) => {
  document.documentElement.dataset.state = 'failed';
  const notice = document.createElement('p');
  notice.className = 'notice';
  notice.setAttribute('role', 'alert');
  notice.textContent = 'A part of this page could not be loaded. Check your network and reload; if it stays so, use a current browser.';
  document.querySelector('main')?.replaceChildren(notice);
  throw error;
});
