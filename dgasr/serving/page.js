// Words light up while they are heard, and a click on one leads there. `timeupdate` does not bubble: it is captured.
element.addEventListener('timeupdate', (event) => {
  const now = event.target.currentTime;
  for (const word of element.querySelectorAll('.word')) {
    word.classList.toggle('now', now >= +word.dataset.start && now < +word.dataset.end);
  }
}, true);
element.addEventListener('click', (event) => {
  const word = event.target.closest('.word');
  if (!word) return;
  const player = element.querySelector('audio');
  player.currentTime = +word.dataset.start;
  player.play();
});
