// Begins: the language, what people do, then what changes. The rest of the page is there already.

const TICK_MS = 100;

field("language").addEventListener("click", () => {
  lasting.set("seckill:language", word("otherLang"));
  tell("");
  speak(word("otherLang"));
});
field("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = field("name").value.trim();
  if (!user || [...user].length > 40) return tell(word("nameBad"));
  return signIn(user);
});
field("leave").addEventListener("click", () => { if (!deal.busy) signOut(); });
field("order").addEventListener("click", order);
field("pay").addEventListener("click", pay);
field("cancel").addEventListener("click", cancel);

speak(language);
watch();
keepInStep();
if (buyer.token) {
  readExtras();
  resume();
}
setInterval(show, TICK_MS);
